"""xp, array_namespace and convert."""

import numpy as np
import pytest

import polyad
from polyad import array_namespace, convert, gradient, xp
from polyad.arrays import dtype_name
from polyad.errors import DetachError, DTypeError, UnsupportedError
from tests.examples import arrays, difference, host


def test_functions_dispatch_on_their_arguments_inside_and_outside_of_a_derivative(backend):
    x = arrays(backend, np.array([0.5, -1.0]))
    seen = []

    def f(x):
        y = xp.tanh(x)
        seen.append(type(y))
        return xp.sum(xp.where(y > 0, y, xp.zeros_like(y)) + xp.concat([y, xp.ones(2, dtype=x.dtype)])[2:] * y)

    t = np.tanh([0.5, -1.0])
    expected = (1 - t**2) * (np.array([1.0, 0.0]) + 1)
    assert difference(gradient(f, x, backend=backend), expected) < 1e-14
    assert type(xp.tanh(x)) is type(x)


def test_functions_without_arrays_belong_to_the_backend_around(backend):
    with polyad.use_backend(backend):
        made = xp.zeros((2, 3))
    assert type(made) is type(arrays(backend, np.zeros(1)))
    seen = []
    gradient(lambda x: (seen.append(xp.ones(2)), xp.sum(x))[1], arrays(backend, np.ones(2)), backend=backend)
    assert type(seen[0]) is type(made)


def test_names_of_equal_dtypes_of_two_frameworks_are_kept_apart():
    jnp = pytest.importorskip("jax.numpy")
    dtype_name.cache_clear()
    assert jnp.float64 == np.float64  # with the same hash
    assert [dtype_name(dtype) for dtype in (jnp.float64, np.float64)] == ["float64", "float64"]
    assert convert(np.ones(2), "numpy", dtype=np.float64).dtype == np.float64


def test_a_dtype_of_the_same_hash_as_another_is_not_compared_with_it():
    strict = pytest.importorskip("array_api_strict")
    dtype_name.cache_clear()
    assert hash(strict.float64) == hash(np.dtype(np.float64))
    assert dtype_name(np.dtype(np.float64)) == "float64"
    assert dtype_name(strict.float64) == "array_api_strict.float64"  # == between the two warns


def test_dtypes_are_equal_to_those_of_every_framework(backend):
    x = arrays(backend, np.ones(2), dtype="float32")
    assert x.dtype == xp.float32
    assert x.dtype != xp.float64
    assert dtype_name(xp.astype(x, xp.float64).dtype) == "float64"
    with polyad.use_backend(backend):
        assert dtype_name(xp.zeros(2, dtype=xp.float64).dtype) == "float64"
    assert repr(xp.float32) == "xp.float32"


def test_a_list_of_traced_arrays_is_stacked_and_not_detached(backend):
    x = arrays(backend, np.array([0.5, 2.0]))
    jac = gradient(lambda x: xp.sum(xp.asarray([x[0] ** 2, 3.0, x[1]]) * 2), x, backend=backend)
    assert difference(jac, np.array([2.0, 2.0])) < 1e-15


def test_captured_ndarrays_are_constants_in_any_function(backend):
    x = arrays(backend, np.array([0.5, 2.0]))
    c = np.array([3.0, -1.0])
    assert difference(gradient(lambda x: xp.sum(xp.multiply(x, c)), x, backend=backend), c) < 1e-15


def test_captured_ndarrays_may_be_given_by_keyword(backend):
    x = arrays(backend, np.array([0.5, -1.0, 2.0]))
    low, high = arrays(backend, np.full(3, -0.75)), np.full(3, 1.5)

    def f(x):
        return xp.sum(xp.clip(x, min=low, max=high) ** 2)

    assert difference(gradient(f, x, backend=backend), np.array([1.0, 0.0, 0.0])) < 1e-14


def test_stop_gradient_stops_every_mode_and_order(backend):
    x = arrays(backend, np.array([0.5, 2.0]))

    def f(x):
        return xp.sum(polyad.stop_gradient(x**2) * x)

    for mode in ("forward", "reverse"):
        assert difference(gradient(f, x, backend=backend, mode=mode), np.array([0.25, 4.0])) < 1e-15
        twice = gradient(lambda x, mode=mode: xp.sum(gradient(f, x, mode=mode)), x, backend=backend, mode=mode)
        assert not host(twice)[0].any()
    assert polyad.stop_gradient({"a": x, "b": "text"})["b"] == "text"


def test_array_namespace_is_the_standard_one(backend):
    x = arrays(backend, np.array([0.5]))
    assert difference(array_namespace(x, None, 2.0).cos(x), np.cos([0.5])) < 1e-15
    with polyad.use_backend(backend):
        assert difference(array_namespace().ones(1), np.ones(1)) == 0.0


def test_a_function_that_is_not_there_is_named():
    with pytest.raises(UnsupportedError, match=r"xp\.tahn"):
        xp.tahn(np.ones(2))
    assert "tanh" in dir(xp)
    assert repr(xp) == "<polyad.xp: the array API of its arguments>"


def test_conversion_goes_both_ways_between_all_backends_and_keeps_what_is_no_array(backend):
    tree = {"w": np.array([[1.5, -2.0]]), "n": np.array([1, 2]), "name": "relu", "flag": True, "none": None}
    there = convert(tree, backend)
    assert there["name"] == "relu"
    assert there["flag"] is True
    for other in ("numpy", "autograd", "jax", "torch"):
        pytest.importorskip(other)
        back = convert(convert(there, other), "numpy")
        assert np.array_equal(back["w"], tree["w"])
        assert back["n"].dtype == np.int64
    assert dtype_name(convert(tree, backend, dtype="float32")["w"].dtype) == "float32"
    assert dtype_name(convert(tree, backend, dtype="float32")["n"].dtype) == "int64"
    with pytest.raises(DTypeError, match="no floating dtype"):
        convert(tree, backend, dtype="int32")


def test_conversion_between_numpy_and_torch_shares_memory_and_jax_never_does():
    torch = pytest.importorskip("torch")
    pytest.importorskip("jax")
    x = np.ones(3)
    t, j = convert(x, "torch"), convert(x, "jax")
    x[0] = 7.0
    assert float(t[0]) == 7.0
    assert float(j[0]) == 1.0
    back = convert(j, "torch")
    back[0] = 5.0
    assert float(j[0]) == 1.0
    with pytest.raises(DetachError, match="requires a gradient"):
        convert(torch.ones(2, requires_grad=True), "numpy")
    with torch.no_grad():
        assert convert(torch.ones(2, requires_grad=True), "numpy").sum() == 2.0


def test_conversion_inside_a_backend_is_differentiable(backend):
    x = arrays(backend, np.array([0.5, 2.0]))
    grad = gradient(lambda x: xp.sum(convert(x, backend, dtype="float32") ** 2), x, backend=backend)
    assert dtype_name(grad.dtype) == "float64"
    assert difference(grad, np.array([1.0, 4.0])) < 1e-6


def test_asarray_of_an_ndarray_is_of_the_current_backend(backend):
    weights = np.array([[0.5, -1.0], [2.0, 0.25]])

    def f(x):
        return xp.sum((x @ xp.asarray(weights)) ** 2)

    x = np.array([0.3, 0.7])
    grad = polyad.gradient(f, polyad.convert(x, backend))
    np.testing.assert_allclose(polyad.convert(grad, "numpy"), 2 * weights @ (x @ weights), rtol=1e-12)
    with polyad.use_backend(backend):
        made = xp.asarray(weights, dtype=xp.float32, copy=True)
    assert type(made) is type(polyad.convert(weights, backend))
    assert polyad.arrays.dtype_name(made.dtype) == "float32"


def test_what_a_function_of_xp_means_is_known_by_types_and_never_for_lists(registry):
    torch = pytest.importorskip("torch")
    a, b = np.asarray([1.0, 2.0]), torch.tensor([3.0, 4.0], dtype=torch.float64)
    for _ in range(3):
        assert type(xp.add(a, a)) is np.ndarray
        assert type(xp.add(b, b)) is torch.Tensor
        assert type(xp.add(a, b)) is torch.Tensor
        assert type(xp.stack([a, a])) is np.ndarray
        assert type(xp.stack([b, b])) is torch.Tensor
        assert type(xp.concat([b, a])) is torch.Tensor
        assert tuple(xp.reshape(b, (1, 2)).shape) == (1, 2)
        assert float(xp.sum(b, axis=0)) == 7.0
        np.testing.assert_allclose(polyad.gradient(lambda x: xp.sum(xp.multiply(x, x)), a), 2 * a, rtol=1e-14)


def test_another_adapter_of_the_same_arrays_is_asked_from_then_on(registry):
    torch = pytest.importorskip("torch")
    b = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert float(xp.sum(b)) == 7.0
    kind = type(polyad.backends.get("torch"))

    class Loud(kind):
        name = "loud"

        @property
        def namespace(self):
            raise RuntimeError("asked")

    polyad.register_backend("loud", Loud)
    with pytest.raises(RuntimeError, match="asked"):
        xp.sum(b)


@pytest.mark.parametrize("name", ["stack", "concat"])
def test_an_array_of_rows_is_joined_as_a_list_of_them_is(name, monkeypatch):
    monkeypatch.setattr(polyad.arrays, "ways", {})  # as in a new process: nothing has been joined yet
    joined = getattr(np, {"concat": "concatenate"}.get(name, name))([*np.eye(3)])
    for rows in (np.eye(3), [*np.eye(3)], np.eye(3)):
        np.testing.assert_array_equal(getattr(xp, name)(rows), joined)
