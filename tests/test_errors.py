"""Wrong input: the type of the error, the leaf it names, and what it says to type."""

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, StatefulLayer, errors, gradient, jacobian, setup, xp
from tests.examples import arrays

MODEL = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 2))


def test_gradient_of_an_array_names_jacobian_and_its_shape(backend):
    x = arrays(backend, np.ones((16, 3)))
    with pytest.raises(errors.NotScalarError, match=r"shape \(16, 2\).*jacobian\(f, x\).*\(16, 2, 16, 3\)"):
        gradient(lambda x: x[:, :2], x, backend=backend)


def test_gradient_of_several_arrays_is_refused(backend):
    x = arrays(backend, np.ones(3))
    with pytest.raises(errors.NotScalarError, match=r"2 arrays of shapes \(\), \(3,\)"):
        gradient(lambda x: (xp.sum(x), x), x, backend=backend)


@pytest.mark.parametrize(("values", "kind"), [([1, 2], "integer"), ([1j, 2.0], "complex"), ([True, False], "boolean")])
def test_numbers_without_a_derivative_are_named(backend, values, kind):
    params = {"dense": {"w": polyad.convert(np.array(values), backend)}}
    with pytest.raises(errors.DTypeError, match=rf"params\['dense'\]\['w'\].*{kind}") as caught:
        gradient(lambda params: xp.sum(params["dense"]["w"]), params, backend=backend)
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(("leaf", "cure"), [(3, r"write 3\.0"), (True, r"write 1\.0")])
def test_python_integers_are_told_how_to_be_floats(leaf, cure):
    with pytest.raises(errors.DTypeError, match=cure):
        gradient(lambda x: x, leaf)


def test_a_leaf_that_is_no_array_is_named(backend):
    params = {"w": arrays(backend, np.ones(2)), "name": "relu"}
    with pytest.raises(errors.LeafError, match=r"params\['name'\] is 'relu' of type str"):
        gradient(lambda params: xp.sum(params["w"]), params, backend=backend)


def test_an_unknown_backend_lists_the_known_ones_and_guesses():
    with pytest.raises(errors.UnknownBackendError, match=r"Did you mean 'torch'\?.*autograd, cupy, jax, numpy, torch"):
        polyad.set_backend("pytorch")
    with pytest.raises(errors.UnknownBackendError):
        gradient(lambda x: x, 1.0, backend="nope")


def test_a_backend_that_is_not_installed_names_the_extra(monkeypatch):
    entry = polyad.backends._Entry("nowhere:Nothing", "not_a_module", 'pip install "polyad[theirs]"')
    monkeypatch.setitem(polyad.backends._entries, "theirs", entry)
    with pytest.raises(errors.BackendNotInstalledError, match=r'pip install "polyad\[theirs\]"') as caught:
        polyad.set_backend("theirs")
    assert isinstance(caught.value, ImportError)


def test_two_frameworks_in_one_call_are_both_named():
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    w, x = arrays("torch", np.ones(2)), arrays("jax", np.ones(2))
    with pytest.raises(errors.MixedArraysError, match=r"params\['w'\] is an array of torch, x of jax.*convert\(x"):
        gradient(lambda params, x: xp.sum(params["w"] * x), {"w": w}, x)
    with pytest.raises(errors.MixedArraysError, match=r"backend='jax', but w is an array of torch"):
        gradient(lambda w: xp.sum(w), w, backend="jax")
    params, state = setup(0, MODEL, backend="torch")
    net = StatefulLayer(MODEL, params, state)
    with pytest.raises(
        errors.MixedArraysError, match=r"params\['layer_0'\]\['weight'\] is an array of torch, x of jax"
    ):
        net(x[None])
    with pytest.raises(errors.MixedArraysError, match=r"x is an array of jax, a parameter that f carries of torch"):
        jacobian(net, x[None])
    with pytest.raises(errors.MixedArraysError, match=r"torch.*jax"):
        polyad.array_namespace(w, x)


def test_parameters_that_a_backend_of_choice_does_not_take_are_what_the_cure_converts():
    pytest.importorskip("jax")
    params, state = setup(0, MODEL, backend="numpy", dtype="float32")
    cure = r"numpy, x of jax.*polyad\.convert\(params, 'jax'\)"
    with polyad.use_backend("jax"), pytest.raises(errors.MixedArraysError, match=cure):
        jacobian(lambda x: StatefulLayer(MODEL, params, state)(x), np.ones((4, 2), np.float32))


def test_a_result_of_another_framework_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(errors.MixedArraysError, match="f returned an array of torch, but its arguments are of numpy"):
        gradient(lambda x: torch.ones(()), np.ones(2), backend="numpy")


def test_parameters_and_input_of_different_precision_are_both_named(backend):
    params, state = setup(0, MODEL, backend=backend, dtype="float32")
    with pytest.raises(errors.DTypeError, match=r"params\['layer_0'\]\['weight'\] is float32, x is float64"):
        StatefulLayer(MODEL, params, state)(arrays(backend, np.ones((3, 2))))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: {"layer_0": p["layer_0"]}, "needs the keys 'layer_0', 'layer_1', 'layer_2'"),
        (lambda p: {**p, "layer_0": {**p["layer_0"], "weight": np.ones((3, 4))}}, r"needs shape \(2, 4\) there"),
        (lambda p: {**p, "layer_0": {**p["layer_0"], "weight": None}}, r"params\['layer_0'\]\['weight'\] is None"),
        (lambda p: [1], "params is list"),
    ],
)
def test_parameters_that_do_not_fit_the_model_are_named(change, message):
    params, state = setup(0, MODEL, backend="numpy")
    with pytest.raises(errors.ParameterError, match=message):
        StatefulLayer(MODEL, change(params), state)


def test_an_input_of_the_wrong_width_names_the_layer():
    params, state = setup(0, MODEL, backend="numpy")
    with pytest.raises(errors.ArgumentError, match=r"Dense\(2, 4, 'tanh'\).*shape \(3, 5\).*\(..., 2\)"):
        StatefulLayer(MODEL, params, state)(np.ones((3, 5)))


def test_what_f_returns_is_checked(backend):
    x = arrays(backend, np.ones(3))
    with pytest.raises(errors.LeafError, match="f returned 'a' of type str"):
        jacobian(lambda x: "a", x, backend=backend)
    with pytest.raises(errors.DTypeError, match="f returned an int"):
        jacobian(lambda x: xp.argmax(x), x, backend=backend)
    with pytest.raises(errors.ArgumentError, match="must return a pair"):
        gradient(lambda x: xp.sum(x), x, has_aux=True, backend=backend)


@pytest.mark.parametrize("argnums", [1, -2, (), (0, 0), (0, -1), "x"])
def test_argnums_that_name_no_argument_are_refused(argnums):
    with pytest.raises(errors.ArgumentError, match="argnums"):
        gradient(lambda x: x, 1.0, argnums=argnums)


def test_an_unknown_mode_lists_the_modes():
    with pytest.raises(errors.ModeError, match="'auto', 'forward', 'reverse', 'finite_difference'"):
        gradient(lambda x: x, 1.0, mode="backward")


def test_float64_on_jax_without_x64_is_said_not_rounded():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(False):
        with pytest.raises(errors.PrecisionError, match="jax_enable_x64"):
            setup(0, MODEL, backend="jax", dtype="float64")
        with pytest.raises(errors.PrecisionError, match="jax_enable_x64"):
            gradient(lambda x: xp.sum(x), np.ones(2), backend="jax")
        params, _ = setup(0, MODEL, backend="jax")
        assert str(params["layer_0"]["weight"].dtype) == "float32"


def test_a_traced_array_does_not_lose_its_derivative_in_convert(backend):
    other = "numpy" if backend != "numpy" else "torch"
    pytest.importorskip(other)
    with pytest.raises(errors.DetachError, match="convert"):
        gradient(lambda x: xp.sum(polyad.convert(x, other)), arrays(backend, np.ones(2)), backend=backend)


def test_an_array_on_another_device_is_named():
    torch = pytest.importorskip("torch")
    w, x = torch.ones(2), torch.ones(2, device="meta")
    with pytest.raises(errors.MixedArraysError, match=r"w is on cpu, x on meta"):
        gradient(lambda w, x: xp.sum(w * x), w, x)


def test_every_error_of_polyad_is_a_polyad_error_and_a_standard_one():
    for name in errors.__all__:
        error = getattr(errors, name)
        assert issubclass(error, errors.PolyadError | errors.PolyadWarning)
        if name not in ("PolyadError", "BackendError", "PolyadWarning"):
            assert issubclass(
                error,
                ValueError
                | TypeError
                | ImportError
                | MemoryError
                | NotImplementedError
                | AssertionError
                | RuntimeError,
            )
        assert f"{name}" in errors.__doc__
