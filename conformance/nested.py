"""Derivatives inside losses: every operator inside, every strategy, every mix of modes, to third order.

The loss of a case is written twice: in polyad with operators, and in NumPy with
the inner derivative as a formula, through which complex steps give the gradient.
The field is U = tanh(x W) V in each row of x, with h = tanh(x W) and d = 1 - h^2.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import polyad
from polyad import nested_switching, xp
from polyad.nested import POLICIES

from .case import Case, numbers, roughly
from .reference import complex_step

__all__ = ["CASES"]

GROUP = "nested"
MODES = ("forward", "reverse")
STRATEGIES = tuple(policy for policy in POLICIES if policy != "off")

PARAMS = {"W": 0.6 * numbers("nested/W", 2, 3), "V": numbers("nested/V", 3, 2)}
X = numbers("nested/x", 4, 2)

_cases: list[Case] = []
CASES = _cases


# The field in polyad.


def field(p: Any) -> Callable[..., Any]:
    """(B, 2) to (B, 2), of parameters that it captures."""
    return lambda x: xp.tanh(x @ p["W"]) @ p["V"]


def squares(a: Any) -> Any:
    return xp.sum(a * a)


def energy(p: Any) -> Callable[..., Any]:
    """(B, 2) to one number."""
    return lambda x: squares(field(p)(x))


def potential(p: Any) -> Callable[..., Any]:
    """(B, 2) to one number, linear in V."""
    return lambda x: xp.sum(field(p)(x))


# In NumPy, analytic: no conjugate and no absolute value.


def parts(p: Any, x: Any) -> tuple[Any, Any, Any]:
    """(h, d, U)."""
    h = np.tanh(x @ p["W"])
    return h, 1 - h * h, h @ p["V"]


def slope(p: Any, x: Any) -> Any:
    """Gradient of energy, (B, 2)."""
    _, d, u = parts(p, x)
    return (2 * u @ p["V"].T * d) @ p["W"].T


def rows(p: Any, x: Any) -> Any:
    """Jacobian of each row, (B, 2, 2)."""
    return np.einsum("ho,bh,ih->boi", p["V"], parts(p, x)[1], p["W"])


def second(p: Any, x: Any) -> Any:
    """Hessian of each row of the potential, (B, 2, 2)."""
    h, d, _ = parts(p, x)
    return np.einsum("ih,bh,jh->bij", p["W"], -2 * h * d * p["V"].sum(axis=1), p["W"])


def bend(p: Any, x: Any) -> Any:
    """Laplacian of U, (B, 2)."""
    h, d, _ = parts(p, x)
    return (-2 * h * d * (p["W"] * p["W"]).sum(axis=0)) @ p["V"]


def line(p: Any, x: Any) -> Any:
    """Second derivative of U at t W_0 + x_0 in t = x_00, (2,)."""
    h = np.tanh(x[0, 0] * p["W"][0] + x[0, 1])
    return (-2 * h * (1 - h * h) * p["W"][0] * p["W"][0]) @ p["V"]


def total(a: Any) -> Any:
    return (a * a).sum()


# What stands inside: (in polyad, in NumPy), of parameters and points, to any array.


def by_vjp(p: Any, x: Any) -> Any:
    u, pull = polyad.vjp(field(p), x)
    return pull(xp.sin(u))[0]  # the cotangent depends on u, and on all that u depends on


def by_jvp(p: Any, x: Any) -> Any:
    u, du = polyad.jvp(field(p), (x,), (x * x,))
    return u * du


def by_value_and_gradient(p: Any, x: Any) -> Any:
    value, gradient = polyad.value_and_gradient(energy(p), x)
    return value * gradient


def by_value_and_jacobian(p: Any, x: Any) -> Any:
    value, jacobian = polyad.value_and_jacobian(field(p), x[0])
    return value[:, None] * jacobian


def by_derivative(p: Any, x: Any) -> Any:
    return polyad.derivative(lambda t: xp.tanh(t * p["W"][0] + x[0, 1]) @ p["V"], x[0, 0], 2)


def by_loop(p: Any, x: Any) -> Any:
    """Three steps of gradient descent, as in meta-learning."""
    for _ in range(3):
        x = x - 0.1 * polyad.gradient(energy(p), x)
    return x


def loop(p: Any, x: Any) -> Any:
    for _ in range(3):
        x = x - 0.1 * slope(p, x)
    return x


INSIDE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "gradient": (lambda p, x: polyad.gradient(energy(p), x), slope),
    "value_and_gradient": (by_value_and_gradient, lambda p, x: total(parts(p, x)[2]) * slope(p, x)),
    "jacobian": (lambda p, x: polyad.jacobian(field(p), x[0]), lambda p, x: rows(p, x)[0]),
    "value_and_jacobian": (by_value_and_jacobian, lambda p, x: parts(p, x)[2][0][:, None] * rows(p, x)[0]),
    "batched_jacobian": (lambda p, x: polyad.batched_jacobian(field(p), x), rows),
    "vjp": (by_vjp, lambda p, x: np.einsum("boi,bo->bi", rows(p, x), np.sin(parts(p, x)[2]))),
    "jvp": (by_jvp, lambda p, x: parts(p, x)[2] * np.einsum("boi,bi->bo", rows(p, x), x * x)),
    "hvp": (
        lambda p, x: polyad.hvp(potential(p), (x,), (x * x,)),
        lambda p, x: np.einsum("bij,bj->bi", second(p, x), x * x),
    ),
    "hessian": (lambda p, x: polyad.hessian(lambda r: xp.sum(field(p)(r)), x[0]), lambda p, x: second(p, x)[0]),
    "laplacian": (lambda p, x: polyad.laplacian(field(p), x), bend),
    "divergence": (lambda p, x: polyad.divergence(field(p), x), lambda p, x: np.einsum("bii->b", rows(p, x))),
    "derivative": (by_derivative, line),
    "a loop of gradients": (by_loop, loop),
}


def losses(inside: tuple[Callable[..., Any], Callable[..., Any]]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The loss in polyad and in NumPy: the inner derivative squared, and the field itself beside it."""
    ask, formula = inside

    def loss(p: Any, x: Any) -> Any:
        return squares(ask(p, x)) + xp.sum(xp.cos(field(p)(x)))

    def reference(p: Any, x: Any) -> Any:
        return total(formula(p, x)) + np.cos(parts(p, x)[2]).sum()

    return loss, reference


def add(name: str, loss: Any, reference: Any, outer: str = "auto", policy: str = "auto", **options: Any) -> None:
    """A case: value and gradient of the loss in parameters and points."""

    def ask(p: Any, x: Any) -> Any:
        with nested_switching(policy):
            return polyad.value_and_gradient(loss, p, x, argnums=(0, 1), mode=outer)

    def expected(p: Any, x: Any) -> Any:
        value, gradients = complex_step(reference, p, x)
        return np.asarray(value), gradients

    _cases.append(
        Case(GROUP, name, ask, (PARAMS, X), expected, source="complex steps through the inner formula", **options)
    )


DOUBLE = ("float64",)

CORE = ("gradient", "jacobian", "batched_jacobian", "vjp", "jvp")
"""One for each kind of pass: the others are made of these."""

for inside, written in INSIDE.items():
    for policy in STRATEGIES if inside in CORE else ("auto", "forward_over_reverse"):
        dtypes = ("float64", "float32") if policy == "auto" and inside in CORE else DOUBLE
        add(
            f"{inside} inside, {policy}",
            *losses(written),
            policy=policy,
            tags=frozenset({inside, policy}),
            dtypes=dtypes,
        )
    if inside in (*CORE, "laplacian", "hvp"):
        tags = frozenset({inside})
        add(f"{inside} inside, forward around", *losses(written), outer="forward", tags=tags, dtypes=DOUBLE)

add("gradient inside, off", *losses(INSIDE["gradient"]), policy="off", tags=frozenset({"gradient", "off"}))


# Modes inside and outside that are asked for by name.

BY_MODE: dict[str, Callable[..., Any]] = {
    "gradient": lambda p, x, mode: polyad.gradient(energy(p), x, mode=mode),
    "jacobian": lambda p, x, mode: polyad.jacobian(field(p), x[0], mode=mode),
    "batched_jacobian": lambda p, x, mode: polyad.batched_jacobian(field(p), x, mode=mode),
    "laplacian": lambda p, x, mode: polyad.laplacian(field(p), x, mode=mode),
}

for inside, (inner, outer) in itertools.product(BY_MODE, itertools.product(MODES, repeat=2)):
    by_mode = BY_MODE[inside]
    pair = losses((lambda p, x, by_mode=by_mode, inner=inner: by_mode(p, x, inner), INSIDE[inside][1]))
    add(f"{inside}: {outer} of {inner}", *pair, outer=outer, tags=frozenset({inside}), dtypes=DOUBLE)


# A tower of derivatives of sin(a . x): all entries meet in it, and every order has a closed form.

A, Z = numbers("nested/a", 3), numbers("nested/z", 3)


def tower(a: Any, x: Any, order: int) -> Any:
    """The tensor of derivatives of this order."""
    u = a @ x
    value = (np.sin(u), np.cos(u), -np.sin(u), -np.cos(u))[order % 4]
    for _ in range(order):
        value = np.multiply.outer(value, a)
    return value


def ask_tower(a: Any, x: Any, modes: tuple[str, ...], policy: str) -> Any:
    def f(x: Any) -> Any:
        return xp.sin(xp.sum(a * x))

    with nested_switching(policy):
        for mode in reversed(modes):
            f = polyad.jacobian(f, mode=mode)
        return f(x)


for order in (1, 2, 3):
    for modes in itertools.product(MODES, repeat=order):
        for policy in STRATEGIES if order == 2 else ("auto",):
            _cases.append(
                Case(
                    GROUP,
                    f"order {order}: {' of '.join(modes)}" + (f", {policy}" if order == 2 else ""),
                    lambda a, x, modes=modes, policy=policy: ask_tower(a, x, modes, policy),
                    (A, Z),
                    lambda a, x, order=order: tower(a, x, order),
                    dtypes=("float64", "float32") if policy == "auto" else DOUBLE,
                    tags=frozenset({"jacobian", policy}),
                )
            )


def third(a: Any, x: Any) -> Any:
    """d/d(a, x) of |d/dx |cos(a . x) a|^2|^2 by complex steps: a gradient of a gradient of a gradient."""

    def loss(a: Any, x: Any) -> Any:
        u, n = (a * x).sum(), (a * a).sum()
        return 4 * (np.cos(u) * np.sin(u)) ** 2 * n**3

    return complex_step(loss, a, x)[1]


def ask_third(a: Any, x: Any, policy: str, inner: str = "auto", middle: str = "auto") -> Any:
    def f(a: Any, x: Any) -> Any:
        return xp.sin(xp.sum(a * x))

    def first(a: Any, x: Any) -> Any:
        return squares(polyad.gradient(lambda x: f(a, x), x, mode=inner))

    def loss(a: Any, x: Any) -> Any:
        return squares(polyad.gradient(lambda x: first(a, x), x, mode=middle))

    with nested_switching(policy):
        return polyad.gradient(loss, a, x, argnums=(0, 1))


for policy in STRATEGIES:
    _cases.append(
        Case(
            GROUP,
            f"a gradient of a gradient of a gradient, {policy}",
            lambda a, x, policy=policy: ask_third(a, x, policy),
            (A, Z),
            third,
            tags=frozenset({"gradient", policy}),
            source="complex steps through a formula",
        )
    )

for inner, middle in itertools.product(MODES, repeat=2):
    _cases.append(
        Case(
            GROUP,
            f"a gradient of a gradient of a gradient, {middle} of {inner}",
            lambda a, x, inner=inner, middle=middle: ask_third(a, x, "auto", inner, middle),
            (A, Z),
            third,
            tags=frozenset({"gradient"}),
            dtypes=DOUBLE,
            source="complex steps through a formula",
        )
    )


# Perturbation confusion (Siskind & Pearlmutter 2008), in every pair of derivatives.

ONE, TWO = np.asarray(1.0), np.asarray(2.0)

SLOPES: dict[str, Callable[[Callable[..., Any], Any], Any]] = {
    "gradient forward": lambda f, x: polyad.gradient(f, x, mode="forward"),
    "gradient reverse": lambda f, x: polyad.gradient(f, x, mode="reverse"),
    "jvp": lambda f, x: polyad.jvp(f, (x,), (xp.ones_like(x),))[1],
    "vjp": lambda f, x: polyad.vjp(f, x)[1](xp.ones_like(x))[0],
    "derivative": lambda f, x: polyad.derivative(f, x),
    "jacobian": lambda f, x: polyad.jacobian(f, x),
}

for inner, outer in itertools.product(SLOPES, repeat=2):

    def confusion(x: Any, y: Any, inner: Callable[..., Any] = SLOPES[inner], outer: Any = SLOPES[outer]) -> Any:
        """d/dx (x d/dy (x + y)) = 1 and d/dx (x d/dy (x y)) = 2 x."""
        plain = outer(lambda x: x * inner(lambda y: x + y, y), x)
        return plain, outer(lambda x: x * inner(lambda y: x * y, y), x)

    _cases.append(
        Case(
            GROUP,
            f"perturbations are not confused: {outer} of {inner}",
            confusion,
            (TWO, ONE),
            lambda x, y: (ONE, 2 * x),
            source="Siskind & Pearlmutter (2008)",
            tags=frozenset({"perturbations"}),
            dtypes=DOUBLE,
            compiled=False,
        )
    )

# Jets carry levels of their own: a Laplacian and a series inside of the passes of the framework, and around them.


def confusion_of_laplacians(x: Any, mode: str) -> Any:
    """d/dx (x lap_y (x y^2)) = 4 x at a point y."""

    def loss(x: Any) -> Any:
        y = xp.reshape(x, (1, 1)) * 3.0
        return xp.sum(x * polyad.laplacian(lambda y: x * y[:, 0] ** 2, y))

    return polyad.gradient(loss, x, mode=mode)


def confusion_of_series(x: Any, mode: str) -> Any:
    """d/dx (x d^2/dt^2 (x t^3 + t^2)) at t = x: d/dx (6 x^3 + 2 x)."""

    def loss(x: Any) -> Any:
        return x * polyad.derivative(lambda t: x * t**3 + t * t, x, 2)

    return polyad.gradient(loss, x, mode=mode)


def series_of_gradients(x: Any, mode: str) -> Any:
    """d^2/dx^2 (x d/dy (x y^2) at y = x) = d^2/dx^2 (2 x^3) = 12 x."""
    return polyad.derivative(lambda x: x * polyad.gradient(lambda y: x * y * y, x, mode=mode), x, 2), polyad.gradient(
        lambda y: x * y * y, x, mode=mode
    )


for mode in MODES:
    for called, ask, answer in (
        ("a Laplacian inside", confusion_of_laplacians, lambda x: 4 * x),
        ("a series inside", confusion_of_series, lambda x: 18 * x * x + 2),
        ("a series around", series_of_gradients, lambda x: (12 * x, 2 * x * x)),
    ):
        _cases.append(
            Case(
                GROUP,
                f"perturbations are not confused: {called}, {mode}",
                lambda x, ask=ask, mode=mode: ask(x, mode),
                (TWO,),
                answer,
                tags=frozenset({"perturbations"}),
                dtypes=DOUBLE,
                compiled=False,
            )
        )


# What inner functions capture.


def captured_cases(policy: str) -> None:
    """c of (3,) reaches the inner function as a leaf, derived, in a container, as an argument, from two levels up."""

    def leaf(c: Any, x: Any) -> Any:
        return polyad.gradient(lambda x: xp.sum(c * x**3), x)

    def derived(c: Any, x: Any) -> Any:
        t = xp.tanh(c)
        return polyad.gradient(lambda x: xp.sum(t * x**3), x)

    def contained(c: Any, x: Any) -> Any:
        net: dict[str, Any] = {"layers": [{"w": c * c}], "name": "net"}
        return polyad.gradient(lambda x: xp.sum(net["layers"][0]["w"] * x**3), x)

    def beside(c: Any, x: Any) -> Any:
        return polyad.gradient(lambda x, c: xp.sum(c * x**3), x, c)

    def keyword(c: Any, x: Any) -> Any:
        return polyad.gradient(lambda x, *, c: xp.sum(c * x**3))(x, c=c)

    def from_above(c: Any, x: Any) -> Any:
        def inner(x: Any) -> Any:
            return xp.sum(polyad.gradient(lambda x: xp.sum(c * x**4), x))

        return 0.25 * polyad.gradient(inner, x)

    def both(c: Any, x: Any) -> Any:
        """x is the argument and captured as well: the captured one is a constant to the inner derivative."""
        held = x
        return polyad.gradient(lambda x: xp.sum(c * held * x * x), x)

    def argument(c: Any, x: Any) -> Any:
        """c is in the cotangent alone."""
        return polyad.vjp(lambda x: x**3, x)[1](c)[0]

    def late(c: Any, x: Any) -> Any:
        return polyad.jvp(lambda x: x**3, (x,), (c,))[1]

    formulas: dict[str, tuple[Any, Any]] = {
        "a leaf": (leaf, lambda c, x: 3 * c * x * x),
        "a derived array": (derived, lambda c, x: 3 * np.tanh(c) * x * x),
        "an array in a container": (contained, lambda c, x: 3 * c * c * x * x),
        "an argument beside": (beside, lambda c, x: 3 * c * x * x),
        "a keyword": (keyword, lambda c, x: 3 * c * x * x),
        "from two levels up": (from_above, lambda c, x: 3 * c * x * x),
        "the argument itself": (both, lambda c, x: 2 * c * x * x),
        "the cotangent": (argument, lambda c, x: 3 * c * x * x),
        "the tangent": (late, lambda c, x: 3 * c * x * x),
    }
    for name, (inside, formula) in formulas.items():

        def ask(c: Any, x: Any, inside: Any = inside) -> Any:
            with nested_switching(policy):
                return polyad.gradient(lambda c, x: squares(inside(c, x)), c, x, argnums=(0, 1))

        _cases.append(
            Case(
                GROUP,
                f"captured: {name}, {policy}",
                ask,
                (A, Z),
                lambda c, x, formula=formula: complex_step(lambda c, x: total(formula(c, x)), c, x)[1],
                tags=frozenset({"captured", policy}),
                dtypes=DOUBLE,
                compiled=False,
                source="complex steps through a formula",
            )
        )


for policy in STRATEGIES:
    captured_cases(policy)


def redrawn(x: Any) -> Any:
    """A function that draws a mask when it is evaluated: value and gradients must be those of one mask."""
    masks = iter(range(1, 100))

    def f(x: Any) -> Any:
        return xp.sum(float(next(masks)) * x**3)

    value, slope = polyad.value_and_gradient(f, x)
    masks = iter(range(1, 100))
    with nested_switching("taped"):
        return value, slope, polyad.gradient(lambda x: squares(polyad.gradient(f, x)), x)


_cases.append(
    Case(
        GROUP,
        "a random mask is drawn once",
        redrawn,
        (Z,),
        lambda x: (np.sum(x**3), 3 * x * x, 36 * x**3),
        tolerance=roughly(1e-10),
        tags=frozenset({"random"}),
        compiled=False,
    )
)
