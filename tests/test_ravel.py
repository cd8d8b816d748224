"""ravel: there and back, through derivatives, on every backend."""

import numpy as np
import pytest

import polyad
from polyad import Chain, Dense, gradient, jacobian, ravel, setup, trees, value_and_gradient, xp
from tests.examples import arrays, compiled, difference, host

W = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
V = np.array([0.3, -0.7])


def test_leaves_follow_each_other_in_order_and_come_back(backend):
    w, v, one = arrays(backend, W, V, 4.0)
    vector, unravel = ravel({"w": w, "b": [v, None, ()], "c": one})
    assert tuple(vector.shape) == (9,)
    assert difference(vector, np.concatenate([V, [4.0], W.ravel()])) == 0.0
    back = unravel(2 * vector)
    assert difference(back, {"w": 2 * W, "b": [2 * V, None, ()], "c": np.array(8.0)}) == 0.0
    assert back["b"][1:] == [None, ()]
    assert type(back["w"]) is type(w)


def test_numbers_and_empty_trees(backend):
    with polyad.use_backend(backend):
        vector, unravel = ravel({})
        assert tuple(vector.shape) == (0,)
        assert unravel(vector) == {}
        vector, unravel = ravel([1.0, 2.0])
        assert [float(x) for x in unravel(3 * vector)] == [3.0, 6.0]
        empty = arrays(backend, np.zeros((0, 3)))
        vector, unravel = ravel([empty, arrays(backend, V)])
        assert tuple(unravel(vector)[0].shape) == (0, 3)


def test_dtypes_are_promoted_and_cast_back(backend):
    small, large = arrays(backend, V, dtype="float32"), arrays(backend, W)
    vector, unravel = ravel([small, large, 2.0])
    assert host(vector)[0].dtype == np.float64
    assert [x.dtype.name for x in host(unravel(vector))] == ["float32", "float64", "float64"]
    vector, unravel = ravel([small, 2.0])
    assert host(vector)[0].dtype == np.float32


def test_gradients_pass_in_both_directions(backend):
    w, v = arrays(backend, W, V)
    vector, unravel = ravel({"w": w, "v": v})

    def through_unravel(vector):
        p = unravel(vector)
        return xp.sum((p["v"] @ p["w"]) ** 2)

    def through_ravel(w):
        return xp.sum(ravel({"w": w**2, "v": v})[0] ** 2)

    y = 2 * (V @ W)
    expected = np.concatenate([W @ y, np.outer(V, y).ravel()])
    for mode in ("forward", "reverse"):
        assert difference(gradient(through_unravel, vector, mode=mode, backend=backend), expected) < 1e-14
        assert difference(gradient(through_ravel, w, mode=mode, backend=backend), 4 * W**3) < 1e-14


def test_mixed_dtypes_keep_their_gradient(backend):
    small, large = arrays(backend, V, dtype="float32"), arrays(backend, W)

    def f(tree):
        return xp.sum(ravel(tree)[0] ** 2)

    grads = gradient(f, [small, large], backend=backend)
    assert difference(grads, [2 * V, 2 * W]) < 1e-6


def test_integers_and_texts_are_refused_by_name(backend):
    v = arrays(backend, V)
    with polyad.use_backend(backend):
        for leaf in (3, True, 1j):
            with pytest.raises(polyad.errors.DTypeError, match=r"ravel: tree\['n'\] is the (int|bool|complex)"):
                ravel({"n": leaf, "v": v})
        with pytest.raises(polyad.errors.DTypeError, match=r"tree\['n'\] is the int64 array of shape \(2,\)"):
            ravel({"n": np.array([1, 2]), "v": v})
        with pytest.raises(polyad.errors.LeafError, match=r"tree\['n'\] is of type str"):
            ravel({"n": "tanh", "v": v})


def test_unravel_refuses_what_does_not_fit(backend):
    vector, unravel = ravel({"v": arrays(backend, V)})
    with pytest.raises(polyad.errors.ArgumentError, match=r"needs a vector of shape \(2,\)"):
        unravel(arrays(backend, np.ones(3)))
    with pytest.raises(polyad.errors.ArgumentError, match="unravel: got 'text'"):
        unravel("text")
    with pytest.raises(polyad.errors.DTypeError, match="the vector is float32, the tree was raveled to float64"):
        unravel(arrays(backend, V, dtype="float32"))
    assert difference(unravel(vector)["v"], V) == 0.0


def test_two_frameworks_are_refused():
    pytest.importorskip("jax")
    pytest.importorskip("torch")
    with pytest.raises(polyad.errors.MixedArraysError, match="ravel: arrays of two frameworks"):
        ravel([arrays("jax", V), arrays("torch", V)])
    vector, _ = ravel([V, arrays("torch", V)])
    assert polyad.backends.owner(vector).name == "torch"


def test_the_device_stays():
    torch = pytest.importorskip("torch")
    meta = torch.ones(2, device="meta")
    vector, unravel = ravel([meta, 2.0])
    assert vector.device.type == "meta"
    assert unravel(vector)[0].device.type == "meta"
    with pytest.raises(polyad.errors.MixedArraysError, match=r"tree\[0\] is on meta, tree\[1\] on cpu"):
        ravel([meta, torch.ones(2)])


def test_it_agrees_with_that_of_jax_under_jit_and_vmap():
    jax = pytest.importorskip("jax")
    from jax.flatten_util import ravel_pytree

    tree = {"w": arrays("jax", W), "b": [arrays("jax", V, dtype="float32"), None]}
    expected, _ = ravel_pytree(tree)
    vector, unravel = ravel(tree)
    assert difference(vector, expected) == 0.0
    assert difference(jax.jit(lambda t: ravel(t)[0])(tree), expected) == 0.0
    back = jax.vmap(unravel)(np.stack([expected, 2 * expected]))
    assert difference(back["w"], np.stack([W, 2 * W])) == 0.0


def test_inside_torch_func_and_autograd():
    torch = pytest.importorskip("torch")
    autograd = pytest.importorskip("autograd")

    def f(tree):
        vector, unravel = ravel(tree)
        return xp.sum(unravel(vector**2)["v"] ** 2)

    assert difference(torch.func.grad(f)({"v": arrays("torch", V)})["v"], 4 * V**3) < 1e-14
    assert difference(autograd.grad(f)({"v": V})["v"], 4 * V**3) < 1e-14
    vector, unravel = ravel({"v": arrays("torch", V), "w": arrays("torch", W)})
    assert tuple(torch.func.vmap(unravel)(torch.stack([vector, vector]))["w"].shape) == (2, 2, 3)
    vector.requires_grad_()
    xp.sum(unravel(vector)["w"] ** 2).backward()
    assert difference(vector.grad[2:], 2 * W.ravel()) < 1e-14


# Documented example 4: the Jacobian of a net in its parameters, as one flat vector.

NET = Chain(Dense(1, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 12, "tanh"), Dense(12, 1))
T = np.random.Generator(np.random.Philox(13)).normal(size=(16, 1))


def tangent_loss(params, t, state):
    vector, unravel = ravel(params)
    J = jacobian(lambda vector: NET(t, unravel(vector), state)[0], vector)
    return xp.sum(J**2)


@pytest.fixture(scope="module")
def expected_of_net():
    params, state = setup(0, NET, backend="numpy", dtype="float64")
    value, grads = value_and_gradient(tangent_loss, params, T, state, argnums=(0, 1), backend="autograd")
    step = 1e-6
    v = trees.map(lambda p: np.cos(p + 1.0), params)
    above, below = (tangent_loss(trees.map(lambda p, d, h=h: p + h * d, params, v), T, state) for h in (step, -step))
    slope = sum(np.sum(g * d) for g, d in zip(host(grads[0]), host(v), strict=True))
    assert abs((above - below) / (2 * step) / slope - 1) < 1e-7
    return value, grads


def test_the_jacobian_in_flat_parameters_has_the_same_gradient_everywhere(backend, expected_of_net):
    params, state = setup(0, NET, backend=backend, dtype="float64")
    t = arrays(backend, T)
    both = value_and_gradient(lambda params, t: tangent_loss(params, t, state), argnums=(0, 1), backend=backend)
    value, grads = compiled(backend, both)(params, t)
    assert difference(value, np.array(expected_of_net[0])) < 1e-12
    pairs = [p for p in zip(host(grads), host(expected_of_net[1]), strict=True) if np.max(np.abs(p[1])) > 1e-6]
    assert len(pairs) == len(host(grads)) - 1  # the last bias alone has none
    assert difference([a for a, _ in pairs], [e for _, e in pairs]) < 1e-10
