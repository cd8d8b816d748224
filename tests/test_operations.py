"""Every differentiable function of the array API on every backend, against numbers of sixty digits."""

import ast
import fnmatch
import functools
import inspect
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from polyad_conformance.modes import MODES
from polyad_conformance.operations import OPERATIONS, OUT_OF_SCOPE, exact, operation, witness
from polyad_conformance.operations.coverage import table
from polyad_conformance.operations.gaps import OPERATION_GAPS
from polyad_conformance.operations.matrix import compared, operations_matrix
from polyad_conformance.operations.witness import derivatives
from polyad_conformance.outcome import FAILURES

import polyad
from polyad import convert, gradient, jvp, vjp, xp
from polyad.errors import UnsupportedError
from polyad.jets import laplacians, pushforwards
from tests.jet_cases import made

BY_NAME = {o.name: o for o in OPERATIONS}


def by_name(o):
    return o.name


# The list is the whole standard.


def names_of_the_standard():
    strict = pytest.importorskip("array_api_strict")
    ours = {"get_array_api_strict_flags", "reset_array_api_strict_flags", "set_array_api_strict_flags"}
    for prefix, module in (("", strict), ("linalg.", strict.linalg), ("fft.", strict.fft)):
        names = {*module.__all__, "eig", "eigvals"} if prefix == "linalg." else module.__all__
        yield from (
            prefix + name for name in names if inspect.isfunction(getattr(module, name, None)) and name not in ours
        )
    of_python = {*dir(object), "__array__", "__buffer__", "__annotations__", "__slots__", "__weakref__", "__iter__"}
    of_python |= {"__module__"}
    of_python -= {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
    for name in dir(strict.asarray(1.0)):
        if name not in of_python and (not name.startswith("_") or name.startswith("__")):
            yield name


def test_every_name_of_the_standard_is_an_operation_or_has_a_reason():
    covered = {name for o in OPERATIONS for name in o.standard} | set(OUT_OF_SCOPE)
    assert set(names_of_the_standard()) - covered == set()


def test_no_name_has_both_and_no_reason_is_stale():
    covered = {name for o in OPERATIONS for name in o.standard}
    assert covered & set(OUT_OF_SCOPE) == set()
    assert set(OUT_OF_SCOPE) - set(names_of_the_standard()) == set()


def test_names_are_unique():
    assert len(BY_NAME) == len(OPERATIONS)


# The witness deserves its trust.


def test_the_witness_knows_nothing_of_polyad():
    modules = set()
    for node in ast.walk(ast.parse(inspect.getsource(exact))):
        modules |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        modules |= {node.module} if isinstance(node, ast.ImportFrom) else set()
    assert {name for name in modules if name.split(".")[0] == "polyad"} == set()


@pytest.mark.parametrize("name", ["tanh", "erf", "gelu", "acosh", "sinc", "log2", "cbrt"])
def test_derivatives_of_numbers_are_those_of_mpmath(name):
    o = BY_NAME[name]
    (x,) = operation.points(o, "here")
    found = derivatives(o, (x,), (np.ones_like(x),), np.ones_like(x))
    f = exact.FUNCTIONS[name]
    for order, actual in ((1, found.gradient[0]), (2, found.hessian[0]), (3, found.third[0])):
        expected = [float(exact.mp.diff(f, exact.mp.mpf(z), order)) for z in x]
        np.testing.assert_allclose(actual, expected, rtol=1e-12)


def test_derivatives_of_an_inverse_are_those_of_the_formula():
    x, v = np.array([[2.0, 0.5], [-0.3, 1.0]]), np.array([[0.3, 0.1], [0.7, -0.2]])
    o = operation.Operation("inv", lambda xp, x: xp.linalg.inv(x), BY_NAME["linalg.inv(x)"].arguments, curved=False)
    found = derivatives(o, (x,), (v,), np.ones((2, 2)))
    y = np.linalg.inv(x)
    np.testing.assert_allclose(found.along, -y @ v @ y, rtol=1e-13)
    np.testing.assert_allclose(found.bent, 2 * y @ v @ y @ v @ y, rtol=1e-13)
    np.testing.assert_allclose(found.gradient[0], -y.T @ np.ones((2, 2)) @ y.T, rtol=1e-13)


@pytest.mark.parametrize("o", OPERATIONS, ids=by_name)
def test_nothing_that_is_expected_is_zero_everywhere(o):
    xs = operation.points(o, "here")
    vs = tuple(0.5 + np.cos(np.arange(x.size)).reshape(x.shape) ** 2 for x in xs)
    y = witness.value(o, xs)
    found = derivatives(o, xs, vs, 0.5 + np.sin(np.arange(y.size)).reshape(y.shape) ** 2)
    for leaves in ((found.value,), (found.along,), (found.bent,), found.gradient, found.hessian, found.third):
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
        assert max(np.max(np.abs(leaf)) for leaf in leaves) > 1e-4


def test_a_wrong_number_a_zero_and_a_wrong_shape_are_no_ok():
    e = (np.array([1.0, 2.0]), np.array([0.5]))
    names = ["y", "d/dx0"]
    cell = lambda a: compared(a, e, names, "float64")["cell"]  # noqa: E731
    assert cell(e) == "ok"
    assert cell((e[0], e[1] * (1 + 1e-8))) == "wrong"
    assert cell((e[0], np.zeros(1))) == "silent zero"
    assert cell((e[0], np.array([np.nan]))) == "wrong"
    assert cell((e[0], np.array(0.5))) == cell((e[0], e[1].astype(np.float32))) == cell(e[:1]) == "wrong"


# The matrix. Of JAX a share here: it compiles each operation for most of a second.


def failures(backend, operations):
    found = list(operations_matrix([backend], operations=operations))
    assert len(found) == len(operations) * len(MODES)
    reasons = {f"the adapter of {backend} has no compiler", "torch takes seconds to compile a function"}
    assert {o.reason for o in found if o.cell == "skipped"} <= reasons
    return [(o.case, o.mode, o.cell, o.message) for o in found if o.cell in FAILURES]


def test_every_cell_is_ok_or_a_documented_gap(backend):
    operations = OPERATIONS[:: 16 if backend == "jax" else 1]
    assert failures(backend, operations) == []


def test_a_gap_that_is_gone_is_a_failure():
    o = BY_NAME["+x"]
    gap = OPERATION_GAPS[1].__class__("numpy", "", ("operations/+x/*",), "none", "", "raises")
    cells = {x.cell for x in operations_matrix(["numpy"], operations=[o], gaps=[gap])}
    assert cells == {"unexpected pass", "skipped"}


@pytest.mark.parametrize("damage", ["value", "derivative"])
def test_a_cache_that_remembers_is_seen(damage):
    class Remembers(type(polyad.backends.get("numpy"))):
        name = "remembers"
        kept = None

        def pushforward(self, f, xs, dxs, has_aux=False):
            found = super().pushforward(f, xs, dxs, has_aux)
            type(self).kept = type(self).kept or found
            ys, dys = self.kept
            return (ys, found[1]) if damage == "value" else (found[0], dys)

    Remembers.owns = lambda self, array: False
    found = list(operations_matrix([Remembers()], modes=("forward",), operations=[BY_NAME["tanh"]]))
    assert [o.cell for o in found] == ["wrong"]


# Random shapes, dtypes and values.

TOLERANCE = {"float64": 1e-9, "float32": 5e-3}


@st.composite
def examples(draw, o):
    """(dtype, points, directions, cotangent) of an operation."""
    least = o.smallest
    sizes = {name: draw(st.integers(least, max(3, least))) for name in operation.SIZES}
    batches = None
    if o.batches:
        n = len(o.arguments)
        batches = draw(hnp.mutually_broadcastable_shapes(num_shapes=n, max_dims=2, max_side=3, min_side=1)).input_shapes
    numbers = st.floats(-1, 1, width=32)
    draws = lambda shape: draw(hnp.arrays(np.float64, shape, elements=numbers, fill=st.nothing()))  # noqa: E731
    xs = o.points(tuple(draws(shape) for shape in o.shapes(sizes, batches)))
    vs = tuple(np.copysign(0.2 + np.abs(v), v) for v in (draws(x.shape) for x in xs))
    y = witness.value(o, xs)
    c = 0.5 + np.abs(draws(y.shape))
    single = lambda x: x.astype(np.float32).astype(np.float64)  # noqa: E731
    return draw(st.sampled_from(list(TOLERANCE))), xs, tuple(map(single, vs)), single(c)


def near(actual, expected, dtype):
    for a, e in zip(actual, expected, strict=True):
        a = np.asarray(convert(a, "numpy"))
        assert a.dtype == dtype
        assert a.shape == e.shape
        assert np.max(np.abs(a - e), initial=0.0) <= TOLERANCE[dtype] * (np.max(np.abs(e), initial=0.0) + 1e-2)


def checked(o, backend, dtype, xs, vs, c, expected):
    """Forward, reverse, and forward over reverse."""
    xs, vs, c = convert((xs, vs, c), backend, dtype=dtype)
    f = functools.partial(o, xp)
    y, dy = jvp(f, xs, vs, backend=backend)
    slope = lambda *xs: vjp(f, *xs, backend=backend)[1](c)  # noqa: E731
    slopes, bends = jvp(slope, xs, vs, backend=backend)
    near((y, dy, *slopes, *bends), (expected.value, expected.along, *expected.gradient, *expected.hessian), dtype)


def known(o, backend):
    """Whether the operation has a gap on this backend."""
    cases = [case for gap in OPERATION_GAPS if gap.backend == backend for case in gap.cases]
    return any(fnmatch.fnmatchcase(f"operations/{o.name}/{mode}", case) for case in cases for mode in MODES)


@pytest.mark.parametrize("o", OPERATIONS, ids=by_name)
def test_random_shapes_and_values(o):
    @settings(max_examples=2, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(examples(o))
    def one(example):
        expected = derivatives(o, *example[1:])
        for backend in ("numpy", "autograd", "torch"):
            if not known(o, backend):
                checked(o, backend, *example, expected)

    one()


@pytest.mark.parametrize("name", ["atan2", "softmax(x)", "linalg.solve(a, b)"])
def test_random_shapes_and_values_on_jax(name):
    pytest.importorskip("jax")

    @settings(max_examples=1, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(examples(BY_NAME[name]))
    def one(example):
        checked(BY_NAME[name], "jax", *example, derivatives(BY_NAME[name], *example[1:]))

    one()


# What has no derivative is loud.


COMPLEX = ("fft.fft", "fft.fftn", "fft.ifft", "fft.rfft", "fft.irfft", "fft.hfft", "linalg.eig", "linalg.eigvals")


@pytest.mark.parametrize("backend", ["numpy", "autograd"])
@pytest.mark.parametrize("name", [*COMPLEX, "imag", "unique_values"])
def test_a_function_without_a_rule_names_itself(backend, name):
    f = functools.reduce(getattr, name.split("."), xp)
    with pytest.raises(UnsupportedError, match=name.rpartition(".")[2]):
        gradient(lambda x: xp.sum(xp.abs(f(x))), np.eye(3) + 0.1, backend=backend)


def test_numbers_of_a_tensor_keep_their_derivative_where_torch_drops_it():
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.5, 2.0], dtype=torch.float64)
    fills = (
        lambda x: xp.full((2, 3), x[1]),
        lambda x: xp.full_like(xp.ones((2, 3)), x[1], dtype=xp.float64),
        lambda x: xp.linspace(0.0, x[1], 6) + xp.linspace(x[1], 0.0, 6),
    )
    for f in fills:
        close = lambda found, expected: torch.testing.assert_close(found, torch.tensor(expected, dtype=x.dtype))  # noqa: E731
        close(gradient(lambda x, f=f: xp.sum(f(x)), x), [0.0, 6.0])
        close(jvp(f, (x,), (torch.ones_like(x),))[1], np.ones(f(x).shape).tolist())


def test_what_a_gap_tells_to_type_is_differentiated():
    x = np.array([1.15, 1.2])
    for f, slope in (
        (lambda x: xp.remainder(5.0, x), -np.floor(5 / x)),
        (lambda x: xp.floor_divide(5.0, x) * x, np.floor(5 / x)),
        (lambda x: xp.positive(x) ** 2, 2 * x),
        (lambda x: xp.flip(x) * x, 2 * x[::-1]),
        (lambda x: xp.matrix_transpose(x[None]) ** 2, 2 * x),
    ):
        for backend in ("autograd", "torch"):
            found = gradient(lambda x, f=f: xp.sum(f(x)), convert(x, backend), backend=backend)
            np.testing.assert_allclose(np.asarray(found), slope, rtol=1e-14)


@pytest.mark.parametrize("framework", ["numpy", "torch", "jax"])
def test_the_slope_of_copysign_at_zero_is_that_of_abs_in_the_framework(framework):
    make = made(framework)
    x, v = make(np.zeros(2)), make(np.ones(2))
    f = lambda x: xp.copysign(x, make(np.array([1.0, -1.0])))  # noqa: E731
    (_,), (slope,) = pushforwards(lambda x: (f(x),), (x,), (v[None],))
    np.testing.assert_array_equal(np.asarray(slope[0]), np.array([1.0, -1.0]) * (framework == "jax"))
    np.testing.assert_array_equal(np.asarray(jvp(f, (x,), (v,))[1]), np.asarray(slope[0]))


def test_an_ndarray_goes_to_the_device_of_the_jet_that_it_meets():
    torch = pytest.importorskip("torch")
    x = torch.ones(3, device="meta")  # shapes without numbers; a device that is not the usual one
    for f in (lambda x: xp.multiply(x, np.ones(3)), lambda x: np.ones(3, np.float32) * x):
        (y,), (dy,) = pushforwards(lambda x, f=f: (f(x),), (x,), (x[None],))
        assert y.device == dy.device == x.device
    assert xp.multiply(x, np.ones(3)).device == x.device


# The published table.


def test_the_published_table_names_every_operation_and_every_name_out_of_scope():
    page = (Path(__file__).parents[1] / "docs" / "coverage.md").read_text(encoding="utf-8")
    assert [o.name for o in OPERATIONS if f"| `{o.name}` |" not in page] == []
    assert [name for name in OUT_OF_SCOPE if f"`{name}`" not in page] == []
    assert "not run" not in page


def test_the_table_says_what_fails_and_why():
    cells = list(operations_matrix(["autograd"], operations=[BY_NAME["+x"], BY_NAME["tanh"]]))
    page = table(cells, ["autograd"])
    assert "| `+x` | raises in every mode |" in page
    assert "| `tanh` | yes |" in page
    assert "type xp.positive(x), or x" in page


# Jets over an array that no adapter knows: the standard and nothing more.

NOT_STRICT = {
    "a name that the standard does not have": (
        *("cbrt", "erf", "exp2", "gelu", "logaddexp2", "sinc", "fmax", "fmin", "fmod", "einsum('ij,kj->ik', x, y)"),
    ),
    "index arrays are strict ones, and alone": (
        *("repeat(x, 2)", "repeat(x, 2, axis=0)", "roll(x, 1)", "roll(x, (1, -2), axis=(0, 1))", "tile(x, (2, 1))"),
        *("sort(x)", "sort(x, axis=0, descending=True)", "take(x, i, axis=-1)", "take(x, i)", "x[i]", "x[i, j]"),
        *("take_along_axis(x, argsort(x), axis=0)", "x[mask]", "x[:, mask]", "linalg.trace(x, offset=1)"),
    ),
    "strict arrays refuse an operator with a jet on its right": (
        *(f"{name}(x) * x²" for name in ("ceil", "floor", "round", "sign", "trunc")),
        *("floor_divide(x, y) * x²", "x // y * x²", "5 // x * x", "full_like(x, y)", "linalg.svd(x).U"),
        *("linalg.svd(x).S", "linalg.pinv of a tall matrix", "linalg.pinv of a wide matrix"),
    ),
    "dtypes are NumPy's for an array that no adapter knows": ("astype(x, float64)", "linspace(x, y, 4)"),
}


@pytest.mark.parametrize("o", OPERATIONS, ids=by_name)
def test_jets_over_strict_arrays(o):
    make = made("strict")
    xs = operation.points(o, "here")
    vs = tuple(0.5 + np.cos(np.arange(x.size)).reshape(x.shape) ** 2 for x in xs)

    def call():
        points, along = [make(x) for x in xs], [make(v)[None, ...] for v in vs]
        ys, dys, laps = laplacians(lambda *zs: (o(xp, *zs),), points, along)
        return ys[0], dys[0][0, ...], laps[0]

    if any(o.name in names for names in NOT_STRICT.values()):
        with pytest.raises((UnsupportedError, AttributeError, IndexError, TypeError)):
            call()
        return
    found = [np.asarray(y) for y in call()]
    expected = derivatives(o, xs, vs, np.ones(found[0].shape))
    near(found, (expected.value, expected.along, expected.bent), "float64")
