"""First order: the operators on fields, which are functions of the points in a batch, and on numbers.

In a row, s = sum_j (c_j x_j + x_j^2 / 2) with c_j = (1 + j) / 4. The field sin(s) has the
gradient cos(s) (c + x) and the Laplacian cos(s) n - sin(s) |c + x|^2; the vector
field sin(s) x^2 the divergence sum_j cos(s) (c_j + x_j) x_j^2 + 2 sin(s) x_j. The
number exp(t / 2) sin(2 t) has derivatives Im((1/2 + 2 i)^k exp((1/2 + 2 i) t)).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

import polyad
from polyad import xp

from .case import Case, numbers

__all__ = ["CASES"]

GROUP = "first order"
X = 0.75 * numbers("fields/x", 5, 3)
K = np.asarray(1.5)
T = np.asarray(0.625)
DOUBLE = ("float64",)


# In xp: written with powers of a sum over columns, so that no constant array is needed.


def phase(x: Any) -> Any:
    """(..., 3) to (...)."""
    return sum((0.25 * (1 + j)) * x[..., j] + 0.5 * x[..., j] ** 2 for j in range(x.shape[-1]))


def one(x: Any) -> Any:
    """(B, n) to (B,)."""
    return xp.sin(phase(x))


def two(x: Any) -> Any:
    """(B, n) to (B, 2)."""
    s = phase(x)
    return xp.stack([xp.sin(s), xp.cos(2.0 * s)], axis=-1)


def flow(x: Any) -> Any:
    """(B, n) to (B, n)."""
    return one(x)[..., None] * x * x


def wave(t: Any) -> Any:
    return xp.exp(0.5 * t) * xp.sin(2.0 * t)


# In NumPy.


def slopes(x: Any) -> tuple[Any, Any]:
    """(s, c + x)."""
    c = 0.25 * (1 + np.arange(x.shape[-1]))
    return np.sum(c * x + 0.5 * x * x, axis=-1), c + x


def rows(x: Any) -> Any:
    """Jacobian of two, (B, 2, n)."""
    s, g = slopes(x)
    return np.stack([np.cos(s), -2 * np.sin(2 * s)], axis=-1)[..., None] * g[..., None, :]


def bends(x: Any) -> Any:
    """Laplacian of two, (B, 2)."""
    s, g = slopes(x)
    first = np.stack([np.cos(s), -2 * np.sin(2 * s)], axis=-1)
    second = np.stack([-np.sin(s), -4 * np.cos(2 * s)], axis=-1)
    return second * np.sum(g * g, axis=-1)[..., None] + first * x.shape[-1]


def outflow(x: Any) -> Any:
    """Divergence of flow, (B,)."""
    s, g = slopes(x)
    return np.sum(np.cos(s)[..., None] * g * x * x + 2 * np.sin(s)[..., None] * x, axis=-1)


def waves(t: Any, order: int) -> Any:
    z = 0.5 + 2j
    return np.imag(z**order * np.exp(z * t))


OPERATORS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "batched_jacobian": (two, rows),
    "laplacian": (two, bends),
    "divergence": (flow, outflow),
}


def _value(name: str, x: Any) -> Any:
    """The field itself, in NumPy."""
    s, _ = slopes(x)
    return np.sin(s)[..., None] * x * x if name == "divergence" else np.stack([np.sin(s), np.cos(2 * s)], axis=-1)


def _with_gradient(f: Callable[..., Any], answer: Any, x: Any) -> Any:
    """The answer, and what the backend's own first derivative is: jets alone could give the rest."""
    return answer, polyad.gradient(lambda x: xp.sum(f(x)), x)


def _gradient(name: str, x: Any) -> Any:
    if name != "divergence":
        return np.sum(rows(x), axis=-2)
    s, g = slopes(x)
    squares = np.sum(x * x, axis=-1)
    return np.cos(s)[..., None] * squares[..., None] * g + 2 * np.sin(s)[..., None] * x


def of(name: str) -> list[Case]:
    operator, (f, answer) = getattr(polyad, name), OPERATORS[name]
    made: list[Case] = []

    def add(form: str, ask: Callable[..., Any], expected: Callable[..., Any], *inputs: Any, **options: Any) -> None:
        options.setdefault("dtypes", ("float64", "float32") if form == "a batch of points" else DOUBLE)
        made.append(
            Case(
                GROUP,
                f"{name}: {form}",
                lambda x, *rest: _with_gradient(f, ask(x, *rest), x),
                inputs,
                lambda x, *rest: (expected(x, *rest), _gradient(name, x)),
                tags=frozenset({name}),
                **options,
            )
        )

    def scaled(x: Any, k: Any) -> Any:
        return k * f(x)

    aux = {"n": 3, "text": "aux"}
    add("a batch of points", lambda x: operator(f, x), answer, X)
    for mode in ("forward", "reverse"):
        add(f"mode {mode}", lambda x, mode=mode: operator(f, x, mode=mode), answer, X)
    add("argnums=1", lambda x, k: operator(lambda k, x: k * f(x), k, x, argnums=1), lambda x, k: k * answer(x), X, K)
    add("argnums=-1", lambda x, k: operator(lambda k, x: k * f(x), k, x, argnums=-1), lambda x, k: k * answer(x), X, K)
    add("curried", lambda x: operator(f)(x), answer, X)
    add("a keyword", lambda x, k: operator(lambda x, *, k: k * f(x))(x, k=k), lambda x, k: k * answer(x), X, K)
    add("captured arrays", lambda x, k: operator(lambda x: (k * k) * f(x), x), lambda x, k: k * k * answer(x), X, K)
    add(
        "aux",
        lambda x: operator(lambda x: (f(x), {"f": f(x), **aux}), x, has_aux=True),
        lambda x: (answer(x), {"f": _value(name, x), **aux}),
        X,
    )
    add("strides", lambda x: operator(f, x[::2, 1:]), lambda x: answer(x[::2, 1:]), X)
    add("one row", lambda x: operator(f, x[:1]), lambda x: answer(x[:1]), X)
    add("no rows", lambda x: operator(f, x[:0]), lambda x: answer(x[:0]), X)
    add("a stop inside", lambda x: operator(lambda x: f(x) + polyad.stop_gradient(x[:, :1]), x), answer, X)
    if name != "batched_jacobian":
        add("one point", lambda x: operator(f, x[0]), lambda x: answer(x[0]), X)
    return made


def _derivatives() -> list[Case]:
    made: list[Case] = []

    def add(form: str, ask: Callable[..., Any], expected: Callable[..., Any], *inputs: Any) -> None:
        made.append(
            Case(
                GROUP,
                f"derivative: {form}",
                lambda t, *rest: (ask(t, *rest), polyad.gradient(wave, t)),
                inputs,
                lambda t, *rest: (expected(t, *rest), waves(t, 1)),
                tags=frozenset({"derivative"}),
                dtypes=("float64", "float32") if form.startswith("order") else DOUBLE,
            )
        )

    for order in range(5):
        add(f"order {order}", lambda t, n=order: polyad.derivative(wave, t, n), lambda t, n=order: waves(t, n), T)
    add("curried", lambda t: polyad.derivative(wave, order=2)(t), lambda t: waves(t, 2), T)
    add(
        "trees",
        lambda t: polyad.derivative(lambda t: {"a": wave(t), "b": (t**3, xp.stack([t, t * t]))}, t, 2),
        lambda t: {"a": waves(t, 2), "b": (6 * t, np.asarray([0.0, 2.0]))},
        T,
    )
    add(
        "captured arrays",
        lambda t, x: polyad.derivative(lambda t: wave(t) * xp.sin(x), t, 2),
        lambda t, x: waves(t, 2) * np.sin(x),
        *(T, X),
    )
    add(
        "aux",
        lambda t: polyad.derivative(lambda t: (wave(t), {"t": t * t, "n": 3}), t, 2, has_aux=True),
        lambda t: (waves(t, 2), {"t": t * t, "n": 3}),
        T,
    )
    add(
        "of a derivative",
        lambda t: polyad.derivative(lambda t: polyad.derivative(wave, t, 2), t, 1),
        lambda t: waves(t, 3),
        T,
    )
    return made


CASES: list[Case] = [case for name in OPERATORS for case in of(name)] + _derivatives()
