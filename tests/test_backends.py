"""Which backend runs a call, and adapters that define one primitive only."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest

import polyad
from polyad import StatefulLayer, gradient, jacobian, setup, use_backend, xp
from polyad.backends import current, get
from polyad.backends.base import Backend
from tests.examples import FIELD, T, X, difference


def used(f, *args, **options):
    """The name of the backend that runs f."""
    seen = []

    def spy(*xs):
        seen.append(current().name)
        return f(*xs)

    gradient(spy, *args, **options)
    return seen[0]


def square(x):
    return xp.sum(x**2)


def test_the_order_of_precedence(monkeypatch):
    torch = pytest.importorskip("torch")
    pytest.importorskip("autograd")
    x = np.ones(2)
    assert used(square, x) == "numpy"
    monkeypatch.setenv("POLYAD_BACKEND", "autograd")
    assert used(square, x) == "autograd"
    polyad.set_backend("torch")
    assert used(square, x) == "torch"
    with use_backend("autograd"):
        assert used(square, x) == "autograd"
        assert used(square, torch.ones(2)) == "torch"  # arrays of a framework speak for themselves
        assert used(square, x, backend="numpy") == "numpy"
    assert used(lambda x: square(x) if used(square, np.ones(2)) == "numpy" else None, x, backend="numpy") == "numpy"


def test_parameters_of_a_stateful_layer_decide_for_an_ndarray():
    torch = pytest.importorskip("torch")
    params, state = setup(0, FIELD, backend="torch", dtype="float64")
    net = StatefulLayer(FIELD, params, state)
    assert isinstance(gradient(net >> square, T), torch.Tensor)
    assert isinstance(gradient(lambda t: square(net(t)), T), torch.Tensor)  # a closure needs no special form


def test_an_unknown_name_in_the_environment_is_said(monkeypatch):
    monkeypatch.setenv("POLYAD_BACKEND", "jaxx")
    with pytest.raises(polyad.errors.UnknownBackendError, match="Did you mean 'jax'"):
        setup(0, FIELD)


def test_a_wrong_set_backend_leaves_the_default():
    polyad.set_backend("autograd")
    with pytest.raises(polyad.errors.UnknownBackendError):
        polyad.set_backend("nope")
    assert current().name == "autograd"


def test_ndarrays_run_on_the_default_backend_as_its_arrays():
    torch = pytest.importorskip("torch")
    with use_backend("torch"):
        assert isinstance(gradient(square, np.ones(2)), torch.Tensor)


def test_backends_lists_what_is_installed_and_what_to_type():
    infos = {info.name: info for info in polyad.backends()}
    assert {"numpy", "autograd", "jax", "torch"} <= infos.keys()
    assert infos["numpy"].version == np.__version__
    assert infos["jax"].install == 'pip install "polyad[jax]"'


def test_importing_polyad_loads_no_framework():
    code = "import sys, polyad; print([m for m in ('torch', 'jax', 'autograd', 'rich', 'typer') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


class One(Backend):
    """An adapter that borrows one primitive of autograd and derives the other."""

    host = True
    wraps = frozenset({"autograd"})

    @property
    def namespace(self):
        return get("autograd").namespace

    def owns(self, array):
        return False


class PullbackOnly(One):
    name = "pullback-only"

    def pullback(self, f, xs, has_aux=False):
        return get("autograd").pullback(f, xs, has_aux)


class PushforwardOnly(One):
    name = "pushforward-only"

    def pushforward(self, f, xs, dxs, has_aux=False):
        dxs = tuple(np.zeros_like(x) if dx is None else dx for x, dx in zip(xs, dxs, strict=True))
        return get("autograd").pushforward(f, xs, dxs, has_aux)


@pytest.mark.parametrize("adapter", [PullbackOnly, PushforwardOnly])
def test_one_primitive_is_enough_for_both_modes_and_for_nesting(adapter):
    pytest.importorskip("autograd")
    backend = adapter()
    x = np.array([0.3, 0.7, -0.4])
    for mode in ("auto", "forward", "reverse"):
        assert difference(jacobian(np_free, x, mode=mode, backend=backend), np.diag(np.cos(x))) < 1e-14
        inner = partial(gradient, lambda y: xp.sum(xp.sin(y) * y), mode=mode, backend=backend)
        nested = gradient(lambda x, inner=inner: xp.sum(inner(x) ** 2), x, mode=mode, backend=backend)
        first = np.sin(x) + x * np.cos(x)
        assert difference(nested, 2 * first * (2 * np.cos(x) - x * np.sin(x))) < 1e-13


def np_free(x):
    return xp.sin(x)


class Bare(One):
    """The two primitives alone, without has_aux."""

    name = "bare"

    def pullback(self, f, xs):
        return get("autograd").pullback(f, xs)

    def pushforward(self, f, xs, dxs):
        return get("autograd").pushforward(f, xs, dxs)


class BarePullback(One):
    name = "bare-pullback"

    def pullback(self, f, xs):
        return get("autograd").pullback(f, xs)


@pytest.mark.parametrize("adapter", [Bare, BarePullback])
@pytest.mark.parametrize("mode", ["auto", "forward", "reverse"])
def test_an_adapter_need_not_know_aux(adapter, mode):
    pytest.importorskip("autograd")
    x = np.array([0.3, 0.7, -0.4])
    options = {"backend": adapter(), "mode": mode}
    assert difference(jacobian(np_free, x, **options), np.diag(np.cos(x))) < 1e-14
    assert difference(polyad.batched_jacobian(np_free, x[:, None], **options)[:, 0, 0], np.cos(x)) < 1e-14
    grad, aux = gradient(lambda x: (xp.sum(x**2), {"cube": x**3, "n": 3}), x, has_aux=True, **options)
    assert difference((grad, aux["cube"]), (2 * x, x**3)) < 1e-14
    assert aux["n"] == 3
    assert difference(polyad.jvp(np_free, (x,), (x,), backend=adapter())[1], x * np.cos(x)) < 1e-14


def test_an_instance_may_be_registered(registry):
    pytest.importorskip("autograd")
    polyad.register_backend("given", Bare())
    assert difference(gradient(square, X, backend="given"), 2 * X) < 1e-15


NET = {}


def test_variables_of_the_module_decide_for_an_ndarray():
    torch = pytest.importorskip("torch")
    params, state = setup(0, FIELD, backend="torch", dtype="float64")
    NET["net"] = StatefulLayer(FIELD, params, state)
    assert isinstance(gradient(lambda t: square(NET["net"](t)), T), torch.Tensor)

    def inside(t):
        return square(gradient(lambda t: square(NET["net"](t)), t))

    assert isinstance(gradient(inside, T), torch.Tensor)
    NET["other"] = polyad.convert(np.ones(1), "jax")  # two frameworks at hand decide nothing
    assert isinstance(gradient(lambda t: square(t) if NET else 0.0, T), np.ndarray)
    NET.pop("other")


@pytest.mark.parametrize("wrong", [3, None, np])
def test_a_backend_is_a_name_or_an_adapter(wrong):
    with pytest.raises(polyad.errors.UnknownBackendError, match="by its name or its adapter"):
        polyad.set_backend(wrong)


def test_an_adapter_without_a_primitive_is_refused():
    with pytest.raises(TypeError, match="must define pushforward or pullback"):
        type("Empty", (One,), {"name": "empty"})()


def test_a_registered_adapter_runs_by_its_name(registry):
    pytest.importorskip("autograd")
    polyad.register_backend("mine", PullbackOnly)
    assert used(square, X, backend="mine") == "pullback-only"
    assert difference(gradient(square, X, backend="mine"), 2 * X) < 1e-15


def test_a_large_gradient_in_forward_mode_says_once_what_would_be_faster(monkeypatch):
    monkeypatch.setattr("polyad.plans._said", set())
    monkeypatch.setattr("polyad.plans.MANY_COLUMNS", 50)
    x = np.linspace(0, 1, 60)
    with pytest.warns(polyad.errors.PolyadWarning, match="60 entries.*backend='autograd'"):
        gradient(square, x, backend="numpy")
    assert difference(gradient(square, x, backend="numpy"), 2 * x) < 1e-15  # no second warning: it would be an error


class Boxes(One):
    """Claims what autograd's own adapter claims too."""

    name = "boxes"

    def owns(self, array):
        return get("autograd").owns(array)

    def pullback(self, f, xs, has_aux=False):
        return get("autograd").pullback(f, xs, has_aux)


def test_an_array_belongs_to_the_adapter_that_was_registered_last(registry):
    pytest.importorskip("autograd")
    get("autograd")  # which claims them too, and is there already
    polyad.register_backend("boxes", Boxes)
    owners = []

    def f(x):
        owners.append(registry.owner(x).name)
        return square(x)

    assert difference(gradient(f, X, backend="boxes"), 2 * X) < 1e-15
    assert owners == ["boxes"]


def test_every_device_is_one_that_arrays_can_be_put_on(backend):
    devices = get(backend).devices()
    assert devices[0] == "cpu"
    for device in devices:
        assert np.array_equal(polyad.convert(polyad.convert(X, backend, device=device), "numpy"), X)
