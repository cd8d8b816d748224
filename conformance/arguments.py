"""First order: every operator that takes trees, with every kind of arguments.

One function serves all of them. With s = sum over leaves i and entries of
(c_i x + x^2 / 2), c_i = 1/4 + i / 8, the derivative of s is c_i + x, that of
sin(s) is cos(s) (c_i + x), and so on: every entry of every leaf has a
derivative of its own, and no two kinds can be mistaken for each other.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import polyad
from polyad import Chain, Dense, StatefulLayer, trees, xp

from .case import Case, numbers, roughly

__all__ = ["CASES"]

GROUP = "first order"


class Pair(NamedTuple):
    """A container with names, as models have them."""

    left: Any
    right: Any


# The function, in xp and in NumPy.


def phase(args: Any) -> Any:
    """s, of all leaves of the arguments."""
    leaves = trees.leaves(args)
    return sum(xp.sum((0.25 + i / 8) * x + 0.5 * x * x) for i, x in enumerate(leaves))


def scalar(*args: Any) -> Any:
    """sin(s)."""
    return xp.sin(phase(args))


def vector(*args: Any) -> Any:
    """A dict of sin(s + 0, 1, 2) and of cos(s)."""
    s = phase(args)
    return {"sines": xp.stack([xp.sin(s), xp.sin(s + 1.0), xp.sin(s + 2.0)]), "cosine": xp.cos(s)}


class Truth:
    """What derivatives of these two are, in NumPy."""

    def __init__(self, args: tuple[Any, ...], argnums: Any) -> None:
        self.args, self.single = args, isinstance(argnums, int)
        chosen = (argnums,) if isinstance(argnums, int) else argnums
        self.argnums = tuple(i % len(args) for i in chosen)
        flat = trees.leaves(args)
        self.s = sum(np.sum((0.25 + i / 8) * x + 0.5 * x * x) for i, x in enumerate(flat))
        slopes = iter([0.25 + i / 8 + x for i, x in enumerate(flat)])
        self.slopes = trees.map(lambda x: next(slopes), args)

    def chosen(self, of_argument: Callable[[int], Any]) -> Any:
        """A tree for each differentiated argument, as operators return it."""
        found = tuple(of_argument(i) for i in self.argnums)
        return found[0] if self.single else found

    def value(self) -> Any:
        return np.sin(self.s)

    def gradient(self) -> Any:
        return self.chosen(lambda i: trees.map(lambda slope: np.cos(self.s) * slope, self.slopes[i]))

    def vector(self) -> Any:
        return {"sines": np.sin(self.s + np.arange(3.0)), "cosine": np.cos(self.s)}

    def rates(self) -> Any:
        """d vector / ds."""
        return {"sines": np.cos(self.s + np.arange(3.0)), "cosine": -np.sin(self.s)}

    def jacobian(self) -> Any:
        def block(rate: Any) -> Any:
            return self.chosen(lambda i: trees.map(lambda slope: np.multiply.outer(rate, slope), self.slopes[i]))

        return {key: block(rate) for key, rate in self.rates().items()}

    def hessian(self) -> Any:
        def block(i: int, slope: Any, path: int) -> Any:
            places = itertools.count()

            def entry(other: Any) -> Any:
                same = next(places) == path
                diagonal = np.cos(self.s) * np.eye(slope.size).reshape(slope.shape * 2) if same else 0.0
                return -np.sin(self.s) * np.multiply.outer(slope, other) + diagonal

            whole = tuple(trees.map(entry, self.slopes[j]) for j in self.argnums)
            return whole[0] if self.single else whole

        flat = itertools.count()
        return self.chosen(lambda i: trees.map(lambda slope: block(i, slope, next(flat)), self.slopes[i]))

    def along(self, directions: Any) -> float:
        """ds in these directions, a tree for each argument or None."""
        pairs = [(self.slopes[i], v) for i, v in enumerate(directions) if v is not None]
        return float(
            sum(
                np.sum(slope * v)
                for slopes, vs in pairs
                for slope, v in zip(trees.leaves(slopes), trees.leaves(vs), strict=True)
            )
        )


# The kinds of arguments.


@dataclass(frozen=True)
class Kind:
    """Arguments, and how they are given.

    prepared  (*inputs) -> args, in polyad; in NumPy it is the same function
    call      how an operator gets f and args
    """

    name: str
    inputs: tuple[Any, ...]
    argnums: Any = 0
    prepared: Callable[..., tuple[Any, ...]] = lambda *inputs: inputs

    def truth(self, inputs: tuple[Any, ...]) -> Truth:
        return Truth(self.prepared(*inputs), self.argnums)


def some(*shape: int) -> np.ndarray:
    """Numbers, small so that the sines stay where they can be told apart in float32."""
    return 0.5 * numbers(f"arguments/{shape}", *shape)


X, Y, Z, N = some(2, 3), some(3), some(2, 1, 2), some()
NESTED = {"net": [Y, (Z, None)], "a": {"z": N, "b": None}}

KINDS = (
    Kind("one array", (X,)),
    Kind("argnums=1", (X, Y), 1),
    Kind("argnums=-1", (X, Y, Z), -1),
    Kind("argnums=(0, 2)", (X, Y, Z), (0, 2)),
    Kind("argnums=(2, 0)", (X, Y, Z), (2, 0)),
    Kind("argnums=(1,)", (X, Y), (1,)),
    Kind("argnums=[0, -1]", (X, Y, Z), [0, -1]),
    Kind("a dict", ({"w": X, "b": Y},)),
    Kind("a tuple", ((X, Y),)),
    Kind("a list", ([X, Y],)),
    Kind("None in a dict", ({"w": X, "b": None},)),
    Kind("a named tuple", (Pair(X, Y),)),
    Kind("nested trees", (NESTED, Y), (0, 1)),
    Kind("a number", (N,)),
    Kind("numbers beside arrays", (N, {"x": X}), (0, 1)),
    Kind("an empty leaf", ({"x": X, "none": np.zeros((0, 2))},)),
    Kind("an empty tree", ({}, X), 1),
    Kind("one row of one entry", (some(1, 1),)),
    Kind("strides", (some(4, 4),), 0, lambda x: (x[::2, 1:],)),
    Kind("a transposed array", (some(3, 2),), 0, lambda x: (_turned(x),)),
    Kind("a flipped array", (X,), 0, lambda x: (xp.flip(x, axis=0),)),
    Kind("a row of an array", (some(4, 4),), 0, lambda x: (x[1],)),
    Kind("the same array twice", (X,), 0, lambda x: (x, x)),
)


IN_FLOAT32 = ("one array", "argnums=(0, 2)", "nested trees", "a number")
"""Kinds that are asked in float32 too: the others are about trees and not numbers."""


SINGLE = ("gradient", "value_and_gradient", "jacobian", "jvp", "vjp", "hvp")
"""Operators that are asked in float32 too: the others are made of these."""

FEW = (*IN_FLOAT32, "argnums=(2, 0)", "a named tuple", "an empty leaf", "None in a dict")
"""Kinds for operators that go the way of another one that is asked for all of them."""


def _turned(x: Any) -> Any:
    return xp.permute_dims(x, (1, 0))


# The operators: (ask of f and args, answer).


@dataclass(frozen=True)
class Operator:
    """An operator, how it is asked, and what it must give."""

    name: str
    ask: Callable[[tuple[Any, ...], Any], Any]
    answer: Callable[[Truth], Any]
    kinds: Callable[[Kind], bool] = lambda kind: True
    compiled: bool = False  # one by one, the same few operations are compiled once for all


def only(argnums: Any, args: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments as directions, those that are not differentiated None."""
    chosen = {i % len(args) for i in ((argnums,) if isinstance(argnums, int) else argnums)}
    return tuple(trees.map(lambda x: 0.5 * x + 0.25, arg) if i in chosen else None for i, arg in enumerate(args))


def ask_vjp(args: Any, argnums: Any) -> Any:
    y, pull = polyad.vjp(vector, *args)
    return y, pull({"sines": 2.0 * y["sines"], "cosine": y["cosine"] + 1.0})


def answer_vjp(truth: Truth) -> Any:
    y, rates = truth.vector(), truth.rates()
    weight = np.sum(2.0 * y["sines"] * rates["sines"]) + (y["cosine"] + 1.0) * rates["cosine"]
    return y, tuple(trees.map(lambda slope: weight * slope, slopes) for slopes in truth.slopes)


def answer_jvp(truth: Truth, argnums: Any) -> Any:
    ds = truth.along(only(argnums, truth.args))
    return truth.vector(), {key: rate * ds for key, rate in truth.rates().items()}


def answer_hvp(truth: Truth) -> Any:
    directions = only(truth.argnums, truth.args)
    ds = truth.along(directions)

    def product(slope: Any, v: Any) -> Any:
        return -np.sin(truth.s) * ds * slope + np.cos(truth.s) * v

    found = tuple(
        None if v is None else trees.map(product, slopes, v) for slopes, v in zip(truth.slopes, directions, strict=True)
    )
    return found[0] if len(found) == 1 else found


def ask_ravel(args: Any, argnums: Any) -> Any:
    flat, unravel = polyad.ravel(args)
    return flat, unravel(2.0 * flat), polyad.gradient(lambda flat: scalar(*unravel(flat)), flat)


def answer_ravel(truth: Truth) -> Any:
    def joined(tree: Any) -> Any:
        return np.concatenate([np.ravel(leaf) for leaf in trees.leaves(tree)])

    doubled = trees.map(lambda x: 2.0 * x, truth.args)
    return joined(truth.args), doubled, np.cos(truth.s) * joined(truth.slopes)


def ask_check(args: Any, argnums: Any) -> Any:
    found = polyad.check_gradients(scalar, *args, argnums=argnums, order=1)
    return 0.0 if found < 1e-2 else found, polyad.gradient(scalar, *args, argnums=argnums)


OPERATORS = (
    Operator("gradient", lambda args, n: polyad.gradient(scalar, *args, argnums=n), Truth.gradient),
    Operator(
        "value_and_gradient",
        lambda args, n: polyad.value_and_gradient(scalar, *args, argnums=n),
        lambda truth: (truth.value(), truth.gradient()),
    ),
    Operator("jacobian", lambda args, n: polyad.jacobian(vector, *args, argnums=n), Truth.jacobian, compiled=True),
    Operator(
        "value_and_jacobian",
        lambda args, n: polyad.value_and_jacobian(vector, *args, argnums=n),
        lambda truth: (truth.vector(), truth.jacobian()),
        lambda kind: kind.name in FEW,
        compiled=True,
    ),
    Operator(
        "hessian",
        lambda args, n: polyad.hessian(scalar, *args, argnums=n),
        Truth.hessian,
        lambda kind: kind.name in FEW,
        True,
    ),
    Operator(
        "jvp",
        lambda args, n: polyad.jvp(vector, args, only(n, args)),
        lambda truth: answer_jvp(truth, truth.argnums),
    ),
    Operator("vjp", ask_vjp, answer_vjp, lambda kind: kind.argnums == 0),
    Operator("hvp", lambda args, n: polyad.hvp(scalar, args, only(n, args)), answer_hvp),
    Operator("ravel", ask_ravel, answer_ravel, lambda kind: kind.argnums in (0, (0, 1))),
    Operator(
        "check_gradients",
        ask_check,
        lambda truth: (0.0, truth.gradient()),
        lambda kind: kind.name in ("one array", "argnums=(0, 2)"),
    ),
)


def of_kind(operator: Operator, kind: Kind) -> Case:
    return Case(
        GROUP,
        f"{operator.name}: {kind.name}",
        lambda *inputs: operator.ask(kind.prepared(*inputs), kind.argnums),
        kind.inputs,
        lambda *inputs: operator.answer(kind.truth(inputs)),
        tags=frozenset({operator.name}),
        compiled=operator.compiled,
        dtypes=("float64", "float32") if kind.name in IN_FLOAT32 and operator.name in SINGLE else ("float64",),
    )


# How an operator is called: curried, with keywords, with aux, by mode, of what is captured.


CURRIED = ("gradient", "value_and_gradient", "jacobian", "value_and_jacobian", "hessian")


def _with(name: str, form: str, ask: Callable[..., Any], *inputs: Any, **options: Any) -> Case:
    """A case of the operator on f of one array, whose answer is that of `Operator`."""
    operator = next(o for o in OPERATORS if o.name == name)
    aux = options.pop("aux", None)

    def expected(x: Any, *rest: Any) -> Any:
        answer = operator.answer(Truth((x, *rest), 0))
        return answer if aux is None else aux(answer, x)

    options.setdefault("dtypes", ("float64", "float32") if form.startswith("mode") else ("float64",))
    return Case(GROUP, f"{name}: {form}", ask, inputs, expected, tags=frozenset({name}), **options)


def _function(name: str) -> Callable[..., Any]:
    return vector if "jacobian" in name else scalar


def _keyword(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, *, other: f(x, other)


def _capturing(f: Callable[..., Any], y: Any) -> Callable[..., Any]:
    derived = 2.0 * y
    return lambda x: f(x, 0.5 * derived)


def _and_aux(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: (f(x), {"cube": x**3, "n": 3, "text": "aux"})


def _aux(x: Any) -> Any:
    return {"cube": x**3, "n": 3, "text": "aux"}


def forms() -> list[Case]:
    made = []
    for name in CURRIED:
        operator, f = getattr(polyad, name), _function(name)

        def curried(x: Any, operator: Any = operator, f: Any = f) -> Any:
            return operator(f)(x)

        def keyword(x: Any, y: Any, operator: Any = operator, f: Any = f) -> Any:
            return operator(_keyword(f))(x, other=y)

        def capturing(x: Any, y: Any, operator: Any = operator, f: Any = f) -> Any:
            return operator(_capturing(f, y), x)

        def with_aux(x: Any, operator: Any = operator, f: Any = f) -> Any:
            return operator(_and_aux(f), x, has_aux=True)

        def joined(answer: Any, x: Any, name: str = name) -> Any:
            if name.startswith("value"):
                return (answer[0], _aux(x)), answer[1]
            return answer, _aux(x)

        made += [
            _with(name, "curried", curried, X),
            _with(name, "a keyword", keyword, X, Y),
            _with(name, "captured arrays", capturing, X, Y),
            _with(name, "aux", with_aux, X, aux=joined),
        ]
        for mode in ("forward", "reverse", "finite_difference"):

            def by_mode(x: Any, operator: Any = operator, f: Any = f, mode: str = mode) -> Any:
                return operator(f, x, mode=mode)

            rough = mode == "finite_difference"
            tolerance = roughly(1e-8, 1e-2) if rough else roughly(1e-10)
            if rough and name != "gradient":
                continue  # the others have the same differences, and a second time they say nothing in float32
            if rough:  # differences know nothing of the backend: its own derivative beside them
                both = lambda x, by_mode=by_mode, o=operator, f=f: (by_mode(x), o(f, x))  # noqa: E731
                made.append(_with(name, f"mode {mode}", both, X, tolerance=tolerance, aux=lambda a, x: (a, a)))
                continue
            made.append(_with(name, f"mode {mode}", by_mode, X, tolerance=tolerance))
    made += [
        _with("jvp", "captured arrays", lambda x, y: polyad.jvp(_capturing(vector, y), (x,), only(0, (x,))), X, Y),
        _with("vjp", "captured arrays", _vjp_capturing, X, Y, aux=lambda answer, x: (answer[0], answer[1][:1])),
        _with("hvp", "captured arrays", _hvp_capturing, X, Y, aux=lambda answer, x: answer[0]),
        _with("jvp", "aux", _jvp_aux, X, aux=lambda answer, x: (*answer, _aux(x))),
        _with("vjp", "aux", _vjp_aux, X, aux=lambda answer, x: (*answer, _aux(x))),
        _with("hvp", "aux", _hvp_aux, X, aux=lambda answer, x: (answer, _aux(x))),
    ]
    return made


def _vjp_capturing(x: Any, y: Any) -> Any:
    value, pull = polyad.vjp(_capturing(vector, y), x)
    return value, pull({"sines": 2.0 * value["sines"], "cosine": value["cosine"] + 1.0})


def _hvp_capturing(x: Any, y: Any) -> Any:
    return polyad.hvp(_capturing(scalar, y), (x,), only(0, (x,)))


def _jvp_aux(x: Any) -> Any:
    return polyad.jvp(_and_aux(vector), (x,), only(0, (x,)), has_aux=True)


def _vjp_aux(x: Any) -> Any:
    value, pull, aux = polyad.vjp(_and_aux(vector), x, has_aux=True)
    return value, pull({"sines": 2.0 * value["sines"], "cosine": value["cosine"] + 1.0}), aux


def _hvp_aux(x: Any) -> Any:
    return polyad.hvp(_and_aux(scalar), (x,), only(0, (x,)), has_aux=True)


# A StatefulLayer as f.

MODEL = Chain(Dense(3, 4, "tanh"), Dense(4, 2))
PARAMS = {
    "layer_0": {"weight": some(3, 4), "bias": some(4)},
    "layer_1": {"weight": some(4, 2), "bias": some(2)},
}
STATE: dict[str, Any] = {"layer_0": {}, "layer_1": {}}
ROWS = some(5, 3)


def net(params: Any) -> StatefulLayer:
    return StatefulLayer(MODEL, params, STATE)


def hidden(params: Any, x: Any) -> tuple[Any, Any, Any]:
    """(h, 1 - h^2, y) of the model in NumPy."""
    h = np.tanh(x @ params["layer_0"]["weight"] + params["layer_0"]["bias"])
    return h, 1 - h * h, h @ params["layer_1"]["weight"] + params["layer_1"]["bias"]


def rows_of_jacobian(params: Any, x: Any) -> Any:
    """(B, out, in)."""
    _, d, _ = hidden(params, x)
    return np.einsum("ho,bh,ih->boi", params["layer_1"]["weight"], d, params["layer_0"]["weight"])


def full_jacobian(params: Any, x: Any) -> Any:
    """(B, out, B, in), the rows apart."""
    return np.einsum("boi,bc->boci", rows_of_jacobian(params, x), np.eye(len(x)))


def sum_of_squares(params: Any, x: Any) -> Any:
    _, d, y = hidden(params, x)
    return np.sum(y * y), (2 * y @ params["layer_1"]["weight"].T * d) @ params["layer_0"]["weight"].T


def pulled(params: Any, x: Any) -> Any:
    y = hidden(params, x)[2]
    return y, (np.einsum("boi,bo->bi", rows_of_jacobian(params, x), np.sin(y)),)


def pushed(params: Any, x: Any) -> Any:
    return hidden(params, x)[2], np.einsum("boi,bi->bo", rows_of_jacobian(params, x), x * x)


def squares(y: Any) -> Any:
    return xp.sum(y * y)


def of_net(name: str, ask: Callable[..., Any], expected: Callable[..., Any]) -> Case:
    return Case(GROUP, f"{name}: a StatefulLayer", ask, (PARAMS, ROWS), expected, tags=frozenset({name}))


def _vjp_net(p: Any, x: Any) -> Any:
    y, pull = polyad.vjp(net(p), x)
    return y, pull(xp.sin(y))


NETS = [
    of_net("jacobian", lambda p, x: polyad.jacobian(net(p), x), full_jacobian),
    of_net(
        "value_and_jacobian",
        lambda p, x: polyad.value_and_jacobian(net(p), x),
        lambda p, x: (hidden(p, x)[2], full_jacobian(p, x)),
    ),
    of_net("batched_jacobian", lambda p, x: polyad.batched_jacobian(net(p), x), rows_of_jacobian),
    of_net("gradient", lambda p, x: polyad.gradient(net(p) >> squares, x), lambda p, x: sum_of_squares(p, x)[1]),
    of_net("value_and_gradient", lambda p, x: polyad.value_and_gradient(net(p) >> squares, x), sum_of_squares),
    of_net("vjp", _vjp_net, pulled),
    of_net("jvp", lambda p, x: polyad.jvp(net(p), (x,), (x * x,)), pushed),
]

CASES: list[Case] = [
    *(of_kind(operator, kind) for operator in OPERATORS for kind in KINDS if operator.kinds(kind)),
    *forms(),
    *NETS,
]
