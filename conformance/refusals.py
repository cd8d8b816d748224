"""Errors: what must raise, which class, and what the message must say. The right call afterwards is still right."""

from collections.abc import Callable
from typing import Any

import numpy as np

import polyad
from polyad import BatchNorm, Chain, Dense, StatefulLayer, errors, nested_switching, setup, xp
from polyad.arrays import dtype_name
from polyad.backends import current
from polyad.layers.layer import Random

from .case import Case, UnlikeError, numbers, refused

__all__ = ["CASES"]

GROUP = "errors"

X = numbers("refusals/x", 4, 3)
WHOLE = np.arange(6).reshape(2, 3)

_cases: list[Case] = []
CASES = _cases


def cubes(x: Any) -> Any:
    return xp.sum(x**3)


def rows(x: Any) -> Any:
    return x * x


def must(
    name: str, call: Callable[..., Any], error: type[Exception], *words: str, inputs: tuple[Any, ...] = (X,)
) -> None:
    """A case: the call must raise the error with these words, and leave everything as it was."""

    def ask(x: Any, *rest: Any) -> Any:
        refused(lambda: call(x, *rest), error, *words)
        slope = polyad.gradient(cubes, x)
        return slope, polyad.gradient(lambda x: xp.sum(polyad.gradient(cubes, x) ** 2), x)

    def expected(x: Any, *rest: Any) -> Any:
        return 3 * x * x, 36 * x**3

    _cases.append(Case(GROUP, name, ask, inputs, expected, compiled=False, dtypes=("float64",)))


# Of what f returns.

must(
    "the gradient of an array names jacobian and its shape",
    lambda x: polyad.gradient(rows, x),
    *(errors.NotScalarError, r"shape \(4, 3\)", r"jacobian\(f, x\)", r"\(4, 3, 4, 3\)"),
)
must(
    "the gradient of two arrays says both shapes",
    lambda x: polyad.gradient(lambda x: (xp.sum(x), x), x),
    *(errors.NotScalarError, r"2 arrays of shapes \(\), \(4, 3\)"),
)
must(
    "the gradient of nothing asks whether f returns it",
    lambda x: polyad.gradient(lambda x: None, x),
    *(errors.NotScalarError, "returned no array", "return"),
)
must(
    "hvp of an array is refused as a gradient is",
    lambda x: polyad.hvp(rows, (x,), (x,)),
    *(errors.NotScalarError, r"shape \(4, 3\)"),
)
must(
    "text out of f is refused",
    lambda x: polyad.jacobian(lambda x: "text", x),
    *(errors.LeafError, "f returned 'text' of type str", "has_aux=True"),
)
must(
    "integers out of f are refused",
    lambda x: polyad.jacobian(lambda x: xp.argmax(xp.reshape(x, (-1,))), x),
    *(errors.DTypeError, "f returned an? int", "integer numbers have no derivative"),
)
must(
    "has_aux needs a pair",
    lambda x: polyad.gradient(cubes, x, has_aux=True),
    *(errors.ArgumentError, "must return a pair"),
)

# Of arguments.

for argnums in (1, -2, (), (0, 0), (0, -1), "x"):
    must(
        f"argnums={argnums!r} of one argument",
        lambda x, argnums=argnums: polyad.gradient(cubes, x, argnums=argnums),
        *(errors.ArgumentError, "argnums"),
    )
must(
    "an integer leaf is named with its cure",
    lambda x, n: polyad.gradient(lambda p: xp.sum(p["net"]["n"]), {"net": {"n": n}}),
    *(errors.DTypeError, r"p\['net'\]\['n'\]", "integer", r"astype\(float\)"),
    inputs=(X, WHOLE),
)
must(
    "a boolean leaf is named",
    lambda x: polyad.gradient(lambda x, b: cubes(x), x, x > 0, argnums=1),
    *(errors.DTypeError, r"\bb\b", "boolean"),
)
must(
    "a Python integer is told how to be a float", lambda x: polyad.gradient(lambda n: n, 3), errors.DTypeError, r"3\.0"
)
must(
    "text among the leaves is named",
    lambda x: polyad.gradient(lambda p: cubes(p["w"]), {"w": x, "name": "relu"}),
    *(errors.LeafError, r"p\['name'\] is 'relu' of type str", "None in its place"),
)
must("what is no function is no f", lambda x: polyad.gradient(3.0, x), errors.ArgumentError, "not a function")
must("vjp needs primals", lambda x: polyad.vjp(cubes)(), errors.ArgumentError, r"vjp\(f, x\)")
must(
    "as many tangents as primals",
    lambda x: polyad.jvp(rows, (x,), (x, x)),
    *(errors.ArgumentError, "1 primals and 2 tangents"),
)
must("primals are a tuple", lambda x: polyad.jvp(rows, x, x), errors.ArgumentError, r"\(x,\), \(v,\)")
must(
    "a tangent has the shape of its primal",
    lambda x: polyad.jvp(rows, (x,), (x[0],)),
    *(errors.ArgumentError, r"shape \(3,\)", r"\(4, 3\)"),
)
must(
    "a cotangent has the tree of the value",
    lambda x: polyad.vjp(rows, x)[1]((x, x)),
    *(errors.ArgumentError, "the cotangent"),
)
must("some tangent is given", lambda x: polyad.jvp(rows, (x,), (None,)), errors.ArgumentError, "every tangent is None")
must(
    "an unknown mode lists the modes",
    lambda x: polyad.gradient(cubes, x, mode="backward"),
    *(errors.ModeError, "'auto', 'forward', 'reverse', 'finite_difference'"),
)
must(
    "an unknown strategy lists the strategies",
    lambda x: nested_switching("sometimes").__enter__(),
    *(errors.ArgumentError, "'sometimes'", "'recompute'", "'forward_over_reverse'"),
)
must(
    "fields have no finite differences",
    lambda x: polyad.laplacian(cubes_of_rows, x, mode="finite_difference"),
    *(errors.ModeError, "finite_difference"),
)
must(
    "a derivative is in one number",
    lambda x: polyad.derivative(cubes, x),
    *(errors.ArgumentError, r"\(4, 3\)", "jacobian"),
)
must("an order is a whole number", lambda x: polyad.derivative(rows, x[0, 0], 1.5), errors.ArgumentError, "order=1.5")


def cubes_of_rows(x: Any) -> Any:
    return xp.sum(x**3, axis=1)


# Of rows.


def centred(x: Any) -> Any:
    return x - xp.mean(x, axis=0)


for operator in ("batched_jacobian", "divergence", "laplacian"):

    def mixing(x: Any, operator: str = operator) -> Any:
        return getattr(polyad, operator)(lambda x: centred(x) ** 3, x)

    must(f"{operator} refuses rows that mix", mixing, errors.RowsMixError, operator, "depend on other rows", "jacobian")


def normalised(x: Any) -> Any:
    model = Chain(Dense(3, 3, "tanh"), BatchNorm(3))
    params, state = setup(0, model, backend=current(), dtype=dtype_name(x.dtype), device=current().device(x))
    return polyad.batched_jacobian(StatefulLayer(model, params, state), x)


must("a BatchNorm in training mixes rows", normalised, errors.RowsMixError, "BatchNorm", r"test_mode\(state\)")
must(
    "a batched Jacobian needs a row for each row",
    lambda x: polyad.batched_jacobian(cubes, x),
    *(errors.ArgumentError, "4 rows"),
)
must(
    "a divergence needs as many components as coordinates",
    lambda x: polyad.divergence(lambda x: x[:, :2], x),
    *(errors.ArgumentError, r"\(4, 3\)", r"\(4, 2\)", "batched_jacobian"),
)
must(
    "a Laplacian needs a row for each row",
    lambda x: polyad.laplacian(cubes, x),
    *(errors.ArgumentError, r"\(4, 3\)", "row by row"),
)

# Of backends and networks.

must(
    "an unknown backend lists the known ones",
    lambda x: polyad.gradient(cubes, x, backend="numpyy"),
    *(errors.UnknownBackendError, "there is no backend 'numpyy'", "Did you mean 'numpy'"),
)
must(
    "parameters must fit the model",
    lambda x: StatefulLayer(Chain(Dense(3, 4)), {"layer_0": {"weight": x}}, {"layer_0": {}}),
    *(errors.ParameterError, r"params\['layer_0'\]", "'weight', 'bias'", r"setup\(0, model\)"),
)
must(
    "the width of an input names the layer",
    lambda x: Dense(5, 4)(x, {"weight": xp.ones((5, 4), dtype=x.dtype), "bias": None}, {}),
    *(errors.ArgumentError, r"Dense\(5, 4\)", r"\(4, 3\)", r"it needs \(..., 5\)"),
)
must(
    "a BatchNorm needs two rows",
    lambda x: BatchNorm(3)(x[:1], {}, BatchNorm(3).init(Random(0))[1]),
    errors.ArgumentError,
    "batch of 1",
)
WORD: Any = "0"
must("a seed is a whole number", lambda x: setup(WORD, Dense(1, 1)), errors.ArgumentError, r"setup\(0, model\)")
must("an unknown activation is guessed", lambda x: Dense(1, 1, "tahn"), errors.ArgumentError, "Did you mean 'tanh'")
must(
    "a model and its input have one precision",
    lambda x: StatefulLayer(Dense(3, 3), *setup(0, Dense(3, 3), backend=current(), dtype="float32"))(x),
    *(errors.DTypeError, "float32", "float64"),
)

# Of derivatives that would be lost.


def right_or_loud(name: str, call: Callable[..., Any], answer: Callable[..., Any]) -> None:
    """A case: the call gives the right derivative, or raises a TypeError or another error that says why not."""

    def ask(x: Any) -> Any:
        try:
            found = call(x)
        except (errors.PolyadError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
            if not str(error):
                raise UnlikeError(f"{type(error).__name__} without a word") from error
            adapter = current()
            values = np.asarray(answer(polyad.convert(x, "numpy")))
            found = polyad.convert(values, adapter, dtype=dtype_name(x.dtype), device=adapter.device(x))
        return polyad.gradient(cubes, x), found

    _cases.append(Case(GROUP, name, ask, (X,), lambda x: (3 * x * x, answer(x)), compiled=False, dtypes=("float64",)))


def converted(x: Any) -> Any:
    return polyad.gradient(lambda x: xp.sum(polyad.convert(polyad.convert(x, "numpy"), current()) ** 2), x)


def written(x: Any) -> Any:
    def f(x: Any) -> Any:
        y = 1.0 * x
        y[0] = 0.0 * y[0]
        return cubes(y)

    return polyad.gradient(f, x)


def as_a_number(x: Any) -> Any:
    return polyad.gradient(lambda x: float(x[0, 0]) * xp.sum(x), x)


def without_first(x: Any) -> Any:
    return np.concatenate([0 * x[:1], 3 * x[1:] ** 2])


def product(x: Any) -> Any:
    found = x[0, 0] + 0 * x
    found[0, 0] += x.sum()
    return found


right_or_loud("convert loses no derivative in silence", converted, lambda x: 2 * x)
right_or_loud("a write inside of f is right or refused", written, without_first)
right_or_loud("float(x) inside of f is right or refused", as_a_number, product)


def checked_wrong(x: Any) -> Any:
    """A derivative that is cut off on purpose."""
    return polyad.check_gradients(lambda x: xp.sum(x * polyad.stop_gradient(x * x)), x)


must(
    "a wrong derivative fails the check, which names the leaf",
    checked_wrong,
    *(errors.GradientCheckError, r"derivative in x\b", "finite differences"),
)
must(
    "a derivative too small to be seen fails the check",
    lambda x: polyad.check_gradients(lambda x: 1.0 + 1e-20 * cubes(x), x),
    *(errors.GradientCheckError, "would pass on a wrong zero"),
)


class OwnError(Exception):
    """Of the user, inside f."""


def raising(x: Any) -> Any:
    xp.sum(x)
    raise OwnError("mine")


for operator in ("gradient", "jacobian", "hessian", "batched_jacobian", "laplacian", "vjp"):
    must(
        f"an exception inside of {operator} comes out as it is",
        lambda x, operator=operator: getattr(polyad, operator)(raising, x),
        *(OwnError, "mine"),
    )
must(
    "an exception in an inner derivative comes out as it is",
    lambda x: polyad.gradient(lambda x: xp.sum(polyad.gradient(raising, x)), x),
    *(OwnError, "mine"),
)
must(
    "ravel names an integer leaf",
    lambda x, n: polyad.ravel({"x": x, "n": n}),
    *(errors.DTypeError, r"tree\['n'\]", "integer", "None"),
    inputs=(X, WHOLE),
)
must(
    "unravel wants its own shape",
    lambda x: polyad.ravel({"x": x})[1](xp.reshape(x, (-1,))[:5]),
    *(errors.ArgumentError, r"shape \(12,\)"),
)
