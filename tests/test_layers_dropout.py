"""Dropout: one mask for one state, on every backend, in every pass; and numbers that are random."""

import os
import subprocess
import sys

import numpy as np
import pytest

import polyad
from polyad import Chain, Dense, Dropout, StatefulLayer, gradient, jacobian, nested_switching, setup, trees, xp
from polyad.errors import ArgumentError
from polyad.layers.dropout import random_words
from tests.examples import arrays, difference, host
from tests.layer_cases import on

NET = Chain(Dense(3, 6, "tanh"), Dropout(0.4), Dense(6, 2))
X = np.random.Generator(np.random.Philox(2)).normal(size=(5, 3))
KEY = np.array([-77, 2**31 - 1], np.int32)
# Made by this generator in 2026-11; a change of it changes every model that was trained with a seed.
WORDS = [-1544409533, 1240988197, -1836931771, 195021065, -1649610127, 634443243]


def words(count, n, key=KEY):
    """As numbers in [0, 1)."""
    return (random_words(key, np.array(count, np.int32), (n,)).astype(np.int64) + 2**31) / 2**32


def unsigned(x, key=0):
    """The same mixing in Python's integers: triple32, keyed after its second shift."""
    x = (x ^ x >> 17) * 0xED5AD4BB % 2**32
    x = ((x ^ x >> 11) ^ key) * 0xAC4C1B51 % 2**32
    x = (x ^ x >> 15) * 0x31848BAB % 2**32
    return x ^ x >> 14


def mask_of(net, x):
    """Which entries a Dropout alone keeps."""
    return host(net(xp.ones_like(x)))[0] != 0


def only(rate, backend, dtype="float64", seed=0):
    model = Dropout(rate)
    params, state = setup(seed, model, backend=backend, dtype=dtype)
    return StatefulLayer(model, params, state)


def test_the_words_are_those_of_unsigned_arithmetic():
    first, second = (unsigned((int(k) + 7 * 0x9E3779B9) % 2**32) for k in KEY)
    expected = [unsigned(i ^ first, second) for i in range(6)]
    assert [w % 2**32 for w in WORDS] == expected


def test_the_words_are_the_same_on_every_backend(backend):
    key, count = polyad.convert((KEY, np.array(7, np.int32)), backend)
    found = on(backend, lambda key, count: random_words(key, count, (2, 3)), key, count)
    assert host(found)[0].ravel().tolist() == WORDS
    assert host(random_words(key, count, (2, 3)))[0].dtype == np.int32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_mask_is_the_same_on_every_backend_and_in_both_precisions(backend, dtype):
    expected = only(0.3, "numpy")
    net = only(0.3, backend, dtype)
    for _ in range(3):  # the count moves alike
        x = arrays(backend, np.ones((20, 7)), dtype=dtype)
        assert np.array_equal(mask_of(net, x), mask_of(expected, np.ones((20, 7))))
    assert host(net.state["count"])[0] == 3
    assert {leaf.dtype for leaf in host(net.state)} == {np.dtype(np.int32)}


def test_the_mask_is_the_same_on_jax_without_64_bit_types():
    pytest.importorskip("jax")
    code = (
        "import jax, numpy as np, polyad; from polyad.layers.dropout import random_words;"
        "key, count = polyad.convert((np.array([-77, 2**31 - 1], np.int32), np.array(7, np.int32)), 'jax');"
        "f = lambda key, count: random_words(key, count, (6,));"
        "print(f(key, count).tolist(), jax.jit(f)(key, count).tolist(), f(key, count).dtype)"
    )
    plain = {**os.environ, "JAX_ENABLE_X64": "0"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain).stdout
    assert out.split("\n")[0] == f"{WORDS} {WORDS} int32"


def test_kept_entries_are_scaled_and_test_mode_leaves_x_as_it_is(backend):
    net, x = only(0.25, backend), arrays(backend, X)
    y = host(net(x))[0]
    kept = y != 0
    assert 0 < kept.sum() < kept.size
    assert np.allclose(y[kept], X[kept] / 0.75, rtol=1e-15)
    tested = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    assert tested(x) is x
    assert host(tested.state["count"])[0] == 1
    again = StatefulLayer(net.model, net.params, polyad.train_mode(polyad.test_mode(net.state)))
    assert np.array_equal(mask_of(again, x), mask_of(net, x))


def test_every_pass_of_a_call_sees_the_mask_of_its_value(backend):
    params, state = setup(0, NET, backend=backend, dtype="float64")
    x = arrays(backend, X)
    _, dropped = Dropout(0.4)(xp.ones_like(x), {}, state["layer_1"])
    w0, b0 = (host(params["layer_0"])[i] for i in (1, 0))
    w2 = host(params["layer_2"])[1]
    mask = mask_of(StatefulLayer(Dropout(0.4), {}, state["layer_1"]), arrays(backend, np.ones((5, 6)))) / 0.6
    slope = 1 - np.tanh(X @ w0 + b0) ** 2
    expected = np.einsum("ih,bh,ho->boi", w0, slope * mask, w2)

    for mode in ("forward", "reverse", *(() if backend == "jax" else ("finite_difference",))):  # slow on JAX uncompiled
        net = StatefulLayer(NET, params, state)
        found = host(jacobian(net, x, mode=mode))[0]
        rows = np.stack([found[b, :, b] for b in range(5)])
        assert difference(rows, expected) < (1e-6 if mode == "finite_difference" else 1e-12)
        assert net.state is state
    net = StatefulLayer(NET, params, state)
    assert difference(polyad.batched_jacobian(net, x), expected) < 1e-12
    value, _ = polyad.value_and_jacobian(net, x)
    assert host(net.state["layer_1"]["count"])[0] == 1
    assert difference(value, StatefulLayer(NET, params, state)(x)) < 1e-14
    assert host(dropped["count"])[0] == 1


@pytest.mark.parametrize("strategy", ["taped", "recompute", "forward_over_reverse"])
@pytest.mark.parametrize("name", ["autograd", "torch", "jax"])
def test_a_nested_derivative_sees_one_mask_whatever_it_keeps(name, strategy):
    pytest.importorskip(name)
    params, state = setup(0, NET, backend=name, dtype="float64")
    x = arrays(name, X)

    def loss(params, x):
        net = StatefulLayer(NET, params, state)
        J = jacobian(net, x)  # on torch and autograd evaluated again when net(x) has moved the state
        return xp.sum(net(x) ** 2) + xp.sum(J**2), net.state

    def run(params, x):
        with nested_switching(strategy):
            return gradient(loss, params, x, argnums=(0, 1), has_aux=True, backend=name)

    grads, after = on(name, run, params, x)
    estimate, _ = estimated()
    assert difference(grads, estimate) < 1e-7
    assert host(after["layer_1"]["count"])[0] == 1


def estimated():
    """The same gradient by finite differences on NumPy."""
    params, state = setup(0, NET, backend="numpy", dtype="float64")

    def loss(params, x):
        net = StatefulLayer(NET, params, state)
        return xp.sum(net(x) ** 2) + xp.sum(jacobian(StatefulLayer(NET, params, state), x) ** 2), net.state

    return gradient(loss, params, X, argnums=(0, 1), has_aux=True, mode="finite_difference", backend="numpy")


def test_a_jitted_step_with_its_state_carried_draws_new_masks_and_traces_once():
    jax = pytest.importorskip("jax")
    plain, state = only(0.5, "numpy"), only(0.5, "jax").state
    traces = []

    @jax.jit
    def step(state, x):
        traces.append(1)
        net = StatefulLayer(Dropout(0.5), {}, state)
        return net(x), net.state

    x = np.ones((8, 8))
    masks = []
    for _ in range(3):
        y, state = step(state, arrays("jax", x))
        masks.append(np.asarray(y) != 0)
        assert np.array_equal(masks[-1], mask_of(plain, x))
    assert len(traces) == 1
    assert not np.array_equal(masks[0], masks[1])


def test_under_a_vmap_every_example_has_the_same_mask_and_a_key_of_its_own_gives_it_another():
    jax = pytest.importorskip("jax")
    torch = pytest.importorskip("torch")
    layer, x = Dropout(0.5), np.ones((4, 32))
    for name, vmap in (("jax", jax.vmap), ("torch", torch.func.vmap)):
        _, state = setup(0, layer, backend=name, dtype="float64")
        same = host(vmap(lambda row, state=state: layer(row, {}, state)[0])(arrays(name, x)))[0]
        assert np.array_equal(same, np.broadcast_to(host(layer(arrays(name, x[0]), {}, state)[0])[0], same.shape))
        keys = polyad.convert(np.arange(8, dtype=np.int32).reshape(4, 2), name)
        other = host(
            vmap(lambda row, key, state=state: layer(row, {}, {**state, "key": key})[0])(arrays(name, x), keys)
        )[0]
        assert len({tuple(row) for row in other}) == 4
        slopes = host(
            vmap(lambda row, state=state: gradient(lambda r: xp.sum(layer(r, {}, state)[0]), row))(arrays(name, x))
        )[0]
        assert np.array_equal(slopes, same)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_zeros_is_the_rate(rate):
    y, _ = Dropout(rate)(np.ones((400, 500)), {}, setup(3, Dropout(rate), backend="numpy")[1])
    assert abs((y == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / y.size)
    assert abs(y.mean() - 1) < 0.02


def test_the_words_are_uniform_and_independent():
    n = 2**18
    u = words(0, n) - 0.5
    limit = 4.5  # standard deviations
    assert abs(u.mean()) * np.sqrt(12 * n) < limit
    assert abs(u.var() - 1 / 12) * np.sqrt(180 * n) < limit
    for bits in (0, 8, 16, 24):  # chi-square of each byte, 255 degrees of freedom: mean 255, deviation 22.6
        seen = np.bincount(((u + 0.5) * 2**32).astype(np.int64) >> bits & 255, minlength=256)
        assert abs(((seen - n / 256) ** 2 / (n / 256)).sum() - 255) < limit * 22.6
    for lag in (1, 2, 3, 64, 1024):
        assert abs(np.mean(u[:-lag] * u[lag:]) * 12) * np.sqrt(n) < limit


def test_calls_and_keys_are_independent_of_each_other():
    n = 2**14
    calls = np.stack([words(count, n) for count in range(24)]) - 0.5
    keys = np.stack([words(0, n, np.array([i, 0], np.int32)) for i in range(24)]) - 0.5
    for rows in (calls, keys):
        correlations = rows @ rows.T * 12 / n - np.diag(np.sum(rows**2, 1) * 12 / n)
        assert np.abs(correlations).max() * np.sqrt(n) < 4.5
    spectrum = np.fft.rfft(calls)  # no call is another one shifted
    shifted = np.fft.irfft(spectrum[:-1] * np.conj(spectrum[1:])) * 12 / n
    assert np.abs(shifted).max() * np.sqrt(n) < 6
    over_time = np.stack([words(count, 16) for count in range(4000)]) - 0.5
    assert np.abs(np.mean(over_time[1:] * over_time[:-1], 0) * 12).max() * np.sqrt(4000) < 4.5


def test_dropouts_in_one_model_and_models_of_other_seeds_have_keys_of_their_own():
    keys = [
        tuple(leaf)
        for seed in (0, 1)
        for leaf in trees.leaves(setup(seed, Chain(Dropout(0.1), Dropout(0.1)), backend="numpy")[1])
        if leaf.shape == (2,)
    ]
    assert len(set(keys)) == 4


@pytest.mark.parametrize("rate", [1, -0.1, "a", True, None])
def test_a_wrong_rate_is_refused(rate):
    with pytest.raises(ArgumentError, match="0 <= rate < 1"):
        Dropout(rate)
