"""CuPy by a stand-in over NumPy that refuses what CuPy refuses: what polyad asks of it, on no GPU."""

import functools

import numpy as np
import pytest
from polyad_conformance import runner
from polyad_conformance.gaps import GAPS
from polyad_conformance.modes import MODES
from polyad_conformance.operations import OPERATIONS
from polyad_conformance.operations.gaps import OPERATION_GAPS
from polyad_conformance.operations.matrix import _arguments, _places

import polyad
from polyad import Chain, Dense, Dropout, StatefulLayer, gradient, jacobian, laplacian, setup, trees, xp
from polyad.errors import ArgumentError, DetachError, MixedArraysError
from tests import stand_in, test_numpy_names
from tests.layer_cases import CASES, derivatives, parts
from tests.stand_in.library import names

X = np.array([[0.3, -0.8, 1.1], [0.9, 0.4, -0.6]])
EXACT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(params=stand_in.VERSIONS)
def cupy(request):
    """The module `cupy`."""
    with stand_in.installed(request.param) as module:
        yield module


@pytest.fixture
def latest():
    with stand_in.installed(stand_in.VERSIONS[-1]) as module:
        yield module


def host(tree):
    return [leaf.get() if hasattr(leaf, "get") else np.asarray(leaf) for leaf in trees.leaves(tree)]


def same(actual, expected):
    """Leaf by leaf; each of the first is an array of CuPy."""
    assert all(type(leaf).__module__ == "tests.stand_in.array" for leaf in trees.leaves(actual))
    pairs = list(zip(host(actual), host(expected), strict=True))
    assert pairs
    for a, e in pairs:
        np.testing.assert_allclose(a, e, **EXACT)


# The suite.


@pytest.mark.parametrize("group", [group for group in runner.GROUPS if group != "operations"])
def test_every_case_of_the_suite_is_ok(latest, group):
    quick = ("[!4]*",)  # the Jacobian in the parameters takes 6 s of 12; the layers have theirs below
    outcomes = list(runner.run(["cupy"], [group], ("float64",), device="gpu", cases=quick))
    assert [outcome.message for outcome in outcomes if outcome.failed] == []
    kinds = [outcome.cell for outcome in outcomes]
    assert kinds.count("ok") >= 8
    skipped = {outcome.reason for outcome in outcomes if outcome.cell == "skipped"}
    assert skipped <= {"cupy has no reverse pass itself"}


def leaves(operation, mode, backend):
    """What the mode gives, as the matrix of operations asks for it."""
    here, there, v, c = polyad.convert(_places(operation), backend)
    call = MODES[mode](functools.partial(operation, xp), v, c, polyad.backends.get(backend))
    return call(*_arguments(mode, here, there))


@pytest.mark.parametrize("mode", ["FoF", "vmap"])
def test_every_operation_has_the_derivatives_that_it_has_on_numpy(cupy, mode):
    """Those of numpy are held to the witness in tests/test_operations.py."""
    for operation in OPERATIONS:
        same(leaves(operation, mode, "cupy"), leaves(operation, mode, "numpy"))


def test_cupy_has_no_gaps_of_its_own():
    assert [gap for gap in (*GAPS, *OPERATION_GAPS) if gap.backend == "cupy"] == []


def test_cases_on_the_cpu_are_skipped_and_say_that_cupy_has_none(latest):
    (outcome, *_) = runner.run(["cupy"], ["documented examples"], ("float64",), device="cpu")
    assert outcome.cell == "skipped"
    assert outcome.reason == "cupy has no cpu here; its devices are cuda:0, cuda:1"


# Code of users.


@pytest.mark.parametrize("case", test_numpy_names.TABLES)
def test_numpy_code_is_differentiated_on_arrays_of_cupy(latest, case):
    f, x = test_numpy_names.TABLES[case]
    same(jacobian(f, latest.asarray(x)), jacobian(lambda x: f(x), x, backend="numpy"))


@pytest.mark.parametrize("name", sorted(CASES))
def test_layers_have_the_derivatives_that_they_have_on_numpy(latest, name):
    expected = functools.partial(derivatives, "numpy", *parts(name, "numpy"))()
    layer, params, state, x, direction = parts(name, "cupy")
    for actual, e in zip(derivatives("cupy", layer, params, state, x, direction), expected, strict=True):
        same(actual, e)


def test_operators_and_functions_of_the_array_and_of_xp_mix_with_captured_arrays(cupy):
    x, c = cupy.asarray(X), cupy.asarray(X + 2.0)
    f = lambda x: xp.sum(xp.tanh(c @ x.T) * (1.5 - 2 * x[:, None, 0]) / np.exp(x).sum(axis=1) + np.float64(2) * x[0, 1])  # noqa: E731
    expected = jacobian(
        lambda x: np.sum(np.tanh((X + 2.0) @ x.T) * (1.5 - 2 * x[:, None, 0]) / np.exp(x).sum(axis=1) + 2 * x[0, 1]), X
    )
    same(gradient(f, x), expected)


def test_ndarrays_that_meet_a_jet_become_arrays_of_cupy(cupy):
    x, w = cupy.asarray(X), np.array([[1.0, 2.0, -1.0], [0.5, 1.5, 3.0]])
    expected = 3 * w * X**2 + (w > 1)
    same(gradient(lambda x: xp.sum(w * x**3) + xp.sum(xp.where(w > 1, x, 0.0)), x), expected)
    same(gradient(lambda x: (x**3 * w).sum() + np.where(w > 1, x, 0.0).sum(), x), expected)


def test_functions_of_cupy_itself_refuse_a_jet_and_the_error_says_what_to_type(cupy):
    with pytest.raises(DetachError, match=r"xp\.tanh\(x\) for jnp\.tanh\(x\) or cupy\.tanh\(x\)"):
        gradient(lambda x: xp.sum(cupy.tanh(x)), cupy.asarray(X))
    with pytest.raises(DetachError):
        gradient(lambda x: xp.sum(cupy.asarray(x) ** 2), cupy.asarray(X))
    with pytest.raises(DetachError):
        gradient(lambda x: xp.sum(x) * float(x[0, 0]), cupy.asarray(X))


def test_the_namespace_of_the_argument_takes_it(cupy):
    def f(x):
        np_or_cp = polyad.array_namespace(x)
        return np_or_cp.sum(np_or_cp.sin(x) ** 2)

    same(gradient(f, cupy.asarray(X)), np.sin(2 * X))


def test_a_laplacian_and_a_hessian_are_arrays_of_cupy(cupy):
    x = cupy.asarray(X)
    f = lambda x: xp.sum(x**4, axis=-1)  # noqa: E731
    same(laplacian(f, x), 12 * np.sum(X**2, axis=-1))
    same(polyad.hessian(lambda x: xp.sum(x**4), x), np.diag(12 * X.ravel() ** 2).reshape(2, 3, 2, 3))
    assert polyad.check_gradients(lambda x: xp.sum(x**4), x) < 1e-6


# In and out.


def test_parameters_are_made_on_the_device_and_with_the_numbers_of_every_backend(cupy):
    model = Chain(Dense(3, 4, "tanh"), Dropout(0.5), Dense(4, 2))
    params, state = setup(3, model, backend="cupy", device="cuda:1", dtype="float64")
    expected, before = setup(3, model, backend="numpy", dtype="float64")
    same(params, expected)
    assert {leaf.device.id for leaf in trees.leaves(params)} == {1}
    with cupy.cuda.Device(1):
        x = polyad.convert(X, "cupy")
        f = lambda params, x: xp.sum(StatefulLayer(model, params, state)(x) ** 2)  # noqa: E731
        slopes = gradient(f, params, x, argnums=(0, 1))
        assert {leaf.device.id for leaf in trees.leaves(slopes)} == {1}
    g = lambda params, x: xp.sum(StatefulLayer(model, params, before)(x) ** 2)  # noqa: E731
    same(slopes, gradient(g, expected, X, argnums=(0, 1)))


def test_arrays_are_made_on_the_device_that_is_asked_for(cupy):
    namespace = polyad.backends.get("cupy").namespace
    for made in (
        namespace.zeros(3, device="cuda:1"),
        namespace.eye(2, 3, k=1, dtype=namespace.float32, device="cuda:1"),
        namespace.arange(3, device=cupy.cuda.Device(1)),
        namespace.asarray(X, device=1),
        polyad.convert(X, "cupy", device="cuda:1"),
    ):
        assert made.device.id == 1
    assert namespace.ones(2, device="cuda").device.id == namespace.ones(2).device.id == 0
    with pytest.raises(ArgumentError, match="cupy has no device 'cpu'; its devices are 'cuda'"):
        polyad.convert(X, "cupy", device="cpu")


def test_arrays_go_there_and_back(cupy):
    tree = {"x": X, "n": np.arange(3), "name": "x"}
    there = polyad.convert(tree, "cupy", dtype="float32")
    assert [str(leaf.dtype) for leaf in (there["x"], there["n"])] == ["float32", "int64"]
    back = polyad.convert(there, "numpy", dtype="float64")
    np.testing.assert_array_equal(back["x"], X.astype(np.float32))
    assert type(back["x"]) is np.ndarray
    assert back["name"] == "x"
    torch = pytest.importorskip("torch")
    assert isinstance(polyad.convert(there["x"], "torch"), torch.Tensor)
    same(polyad.convert(torch.tensor(X), "cupy"), X)
    with pytest.raises(DetachError):
        gradient(lambda x: np.sum(polyad.convert(x, "numpy")), cupy.asarray(X))


def test_arrays_of_two_frameworks_are_refused(cupy):
    torch = pytest.importorskip("torch")
    with pytest.raises(MixedArraysError, match="torch"):
        gradient(lambda x: xp.sum(xp.multiply(x, torch.ones(2, 3))), cupy.asarray(X))


def test_without_a_driver_there_is_no_device(latest, monkeypatch):
    def missing():
        raise latest.cuda.runtime.CUDARuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(latest.cuda.runtime, "getDeviceCount", missing)
    assert polyad.backends.get("cupy").devices() == ()
    (outcome, *_) = runner.run(["cupy"], ["documented examples"], ("float64",), device="gpu")
    assert (outcome.cell, outcome.reason) == ("skipped", "cupy has no gpu here; its devices are none")


def test_the_version_and_the_hardware_are_said(cupy):
    (info,) = (info for info in polyad.backends.backends() if info.name == "cupy")
    assert (info.installed, info.version) == (True, cupy.__version__)
    assert polyad.backends.get("cupy").hardware(cupy.asarray(X)) == "stand-in for a GPU"


# The stand-in is as strict as CuPy.


def test_the_stand_in_has_the_names_of_cupy_and_no_others(cupy):
    found = names(cupy.__version__)
    for part, module in (("cupy", cupy), ("linalg", cupy.linalg), ("fft", cupy.fft)):
        assert {name for name in vars(module) if not name.startswith("_")} == set(found[part])
    assert not hasattr(cupy, "vecdot")
    assert not hasattr(cupy.linalg, "vector_norm")
    own = {"held", "cupy"}
    assert {name for name in dir(cupy.ndarray) if not name.startswith("_")} - own <= set(found["ndarray"])


@pytest.mark.parametrize(
    "refused",
    [
        lambda cp, x: np.asarray(x),
        lambda cp, x: np.array([x, x]),
        lambda cp, x: x + np.ones(3),
        lambda cp, x: np.ones(3) + x,
        lambda cp, x: np.ones((3, 3)) @ x,
        lambda cp, x: cp.tanh([1.0]),
        lambda cp, x: cp.stack([x, np.ones(3)]),
        lambda cp, x: cp.sum(np.ones(3)),
        lambda cp, x: cp.sum(x, keep=True),
        lambda cp, x: cp.argsort(x, stable=True),
        lambda cp, x: range(cp.argmax(x)),
        lambda cp, x: x.__setitem__(0, np.ones(())),
        lambda cp, x: x.__iadd__(np.ones(3)),
        lambda cp, x: hash(x),
    ],
)
def test_the_stand_in_takes_no_ndarrays_and_becomes_none(cupy, refused):
    with pytest.raises(TypeError):
        refused(cupy, cupy.asarray(np.ones(3)))


def test_the_stand_in_refuses_what_cupy_refuses(cupy):
    x = cupy.asarray(np.eye(3))
    with pytest.raises(ValueError, match="multidimensional b"):
        cupy.linalg.solve(x, cupy.ones((2, 3, 3)))
    with pytest.raises(ValueError, match="current device"), cupy.cuda.Device(1):
        cupy.tanh(x)
    assert type(cupy.sum(x)) is cupy.ndarray
    assert cupy.sum(x).shape == ()
    assert x[[0, 2]].shape == x[np.array([0, 2])].shape == (2, 3)


def test_one_vector_is_solved_for_by_each_of_many_matrices(cupy):
    many, vector = np.arange(18.0).reshape(2, 3, 3) + 9 * np.eye(3), np.arange(1.0, 4.0)
    found = xp.linalg.solve(cupy.asarray(many), cupy.asarray(vector))
    np.testing.assert_allclose(cupy.asnumpy(found), [np.linalg.solve(a, vector) for a in many], rtol=1e-12)
