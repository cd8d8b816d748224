"""What a program of JAX proves of rows: never a falsehood, and the truth for what models are made of."""

import functools
import sys

import numpy as np
import pytest

from polyad import Chain, Dense, LayerNorm, StatefulLayer, batched_jacobian, gradient, setup, trees, xp
from polyad.backends import get
from polyad.errors import RowsMixError

jax = pytest.importorskip("jax")
jnp, nn = jax.numpy, jax.nn
jax_rows = pytest.importorskip("polyad.backends.jax_rows")
rows_apart = jax_rows.rows_apart

ROWS = 4
W = np.linspace(-1, 1, ROWS * ROWS).reshape(ROWS, ROWS) + 0.3 * np.eye(ROWS)
V = np.linspace(0.5, 2, ROWS)
X = jnp.sin(jnp.arange(1.0, 1.0 + ROWS * ROWS)).reshape(ROWS, ROWS)


@jax.custom_jvp
def tanh(x):
    return jnp.tanh(x)


@tanh.defjvp
def _(xs, dxs):
    y = tanh(xs[0])
    return y, (1 - y * y) * dxs[0]


def convolution(x):
    return jax.lax.conv_general_dilated(x[:, None], W[:2, None, :3], (1,), "SAME")


# Of x with as many rows as columns: what mixes them has the right shape.
APART = {
    "tanh(x @ w + b)": lambda x: jnp.tanh(x @ W + V),
    "w.T @ x.T": lambda x: (W.T @ x.T).T,
    "x * x": lambda x: x * x,
    "x * w": lambda x: x * W,
    "x * v": lambda x: x * V,
    "x + row sums": lambda x: x + x.sum(1, keepdims=True),
    "x + row sums, indexed": lambda x: x * x.sum(-1)[:, None],
    "softmax of a row": lambda x: nn.softmax(x),
    "log_softmax": lambda x: nn.log_softmax(x),
    "logsumexp": lambda x: nn.logsumexp(x, 1),
    "relu": nn.relu,
    "softplus": nn.softplus,
    "gelu and silu": lambda x: nn.gelu(x) * nn.silu(x),
    "a custom_jvp that is right": tanh,
    "mean, max": lambda x: x.mean(1) + x.max(-1),
    "columns": lambda x: x[:, 1:] * x[:, :1],
    "one column": lambda x: x[:, 2] ** 3,
    "chosen columns": lambda x: x[:, np.array([2, 0])],
    "a traced column": lambda x: jax.lax.dynamic_slice_in_dim(x, jnp.argmax(V), 2, 1),
    "stack": lambda x: jnp.stack([x[:, 0], x[:, 1] * x[:, 2]], -1),
    "stack in front": lambda x: jnp.stack([x, x**2]).sum(0),
    "concatenate": lambda x: jnp.concatenate([x, W * x], 1),
    "concatenate with constants": lambda x: jnp.concatenate([W, x], 1),
    "split": lambda x: jnp.split(x, 2, axis=1)[1],
    "where": lambda x: jnp.where(x > 0, x, 0.1 * x),
    "sorted in a row": lambda x: jnp.sort(x, 1),
    "cumsum in a row": lambda x: jnp.cumsum(x, 1),
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2))),
    "reshape and back": lambda x: jnp.sin(x.reshape(-1)).reshape(ROWS, ROWS),
    "folded product": lambda x: (jnp.tanh(x.reshape(2 * ROWS, 2)) @ W[:2, :3]).reshape(ROWS, 2, 3),
    "permuted features": lambda x: x.reshape(ROWS, 2, 2).transpose(1, 0, 2).transpose(1, 2, 0) * 2,
    "attention within a row": lambda x: jnp.einsum("bij,bkj->bik", x.reshape(ROWS, 2, 2), x.reshape(ROWS, 2, 2)),
    "convolution": convolution,
    "vmap": jax.vmap(lambda row: jnp.tanh(W @ row)),
    "checkpoint": jax.checkpoint(lambda x: jnp.tanh(x @ W)),
    "jit": jax.jit(lambda x: jnp.tanh(x @ W)),
    "an inner gradient": jax.grad(lambda x: jnp.sum(jnp.tanh(x @ W) ** 2)),
    "constant": lambda x: jnp.asarray(W),
    "itself": lambda x: x,
    "stop_gradient": lambda x: x * jax.lax.stop_gradient(x),
    "broadcast": lambda x: jnp.broadcast_to(x[:, :1], (ROWS, ROWS)) * W,
}


@jax.custom_jvp
def another(x):
    return jnp.tanh(x)


another.defjvp(lambda xs, dxs: (jnp.tanh(xs[0]), dxs[0][::-1]))

MIXED = {
    "w @ x": lambda x: W @ x,
    "x.T @ w": lambda x: x.T @ W,
    "x @ x.T": lambda x: x @ x.T,
    "x.T": lambda x: jnp.tanh(x.T),
    "column sums": lambda x: x + x.sum(0),
    "column means": lambda x: x - x.mean(0, keepdims=True),
    "everything": lambda x: x * x.sum(),
    "a row of numbers": lambda x: x * x.sum(1),
    "softmax of a column": lambda x: nn.softmax(x, 0),
    "cumsum": lambda x: jnp.cumsum(x, 0),
    "cumsum of all": lambda x: jnp.cumsum(x).reshape(ROWS, ROWS),
    "flip": lambda x: x[::-1],
    "roll": lambda x: jnp.roll(x, 1, 0),
    "the first row": lambda x: x + x[:1],
    "the first row, indexed": lambda x: x * x[0],
    "permuted rows": lambda x: x[np.array([1, 0, 3, 2])],
    "half of them": lambda x: jnp.concatenate([x[:2], x[:2]], 0),
    "stack in front": lambda x: jnp.stack([x[1], x[0], x[2], x[3]], 0),
    "shifted": lambda x: jax.lax.pad(x, jnp.zeros((), x.dtype), ((1, -1, 0), (0, 0, 0))),
    "every other row": lambda x: jnp.repeat(x[::2], 2, 0),
    "reshape that mixes": lambda x: x.reshape(2, 8).T.reshape(ROWS, ROWS),
    "outer": lambda x: jnp.einsum("ai,bi->abi", x, x),
    "sorted": lambda x: jnp.sort(x, 0),
    "scan over rows": lambda x: jax.lax.scan(lambda c, row: (c + row, c + row), x[0], x)[1],
    "a rule that mixes": another,
    "a rule that mixes, in a jit": jax.jit(lambda x: another(x)),
}


def independent(f):
    """Whether they are, by the derivative in a direction of each row."""
    for j in range(ROWS):
        direction = jnp.zeros_like(X).at[j].set(1 + V)
        moved = np.abs(jax.jvp(f, (X,), (direction,))[1]).reshape(ROWS, -1).max(1)
        if np.delete(moved, j).max() > 1e-9:
            return False
    return True


@pytest.mark.parametrize("name", APART)
def test_what_models_are_made_of_is_proved(name):
    assert independent(APART[name])
    assert rows_apart(APART[name], X)


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_rows_is_never_proved(name):
    assert not independent(MIXED[name])
    assert not rows_apart(MIXED[name], X)


FIRST = ["tanh(x @ w + b)", "w.T @ x.T", "log_softmax", "relu", "reshape and back", "an inner gradient", "constant"]


@pytest.mark.parametrize("first", FIRST)
def test_compositions_are_proved_if_both_parts_are(first):
    f = APART[first]
    for g in APART.values():
        assert rows_apart(lambda x, g=g: g(jnp.sin(f(x))), X)
    if first != "constant":
        for g in MIXED.values():
            assert not rows_apart(lambda x, g=g: g(f(x)), X)
            assert not rows_apart(lambda x, g=g: f(x) + g(x).sum(), X)


def test_a_custom_vjp_proves_nothing():
    @jax.custom_vjp
    def twice(x):
        return 2 * x

    twice.defvjp(lambda x: (2 * x, None), lambda _, ct: (ct[::-1],))
    assert not rows_apart(twice, X)


@pytest.mark.skipif(not hasattr(jax, "new_ref"), reason="this version of JAX has no references")
def test_what_is_written_to_a_reference_proves_nothing():
    """No variable says that what is read there was written."""

    def written(x):
        ref = jax.new_ref(jnp.zeros_like(x))
        ref[...] = x[::-1] ** 2
        return ref[...] * 2.0

    def inner(x):
        ref = jax.new_ref(x * x)
        return jax.jit(lambda ref: ref[...][::-1])(ref)

    for f in (written, jax.jit(written), inner):
        assert not rows_apart(f, X)
        with pytest.raises(RowsMixError):
            batched_jacobian(f, X, mode="reverse")


def test_a_rule_that_knows_which_arguments_stand_still_proves_nothing():
    @jax.custom_jvp
    def times(a, b):
        return a * b

    @functools.partial(times.defjvp, symbolic_zeros=True)
    def _(xs, dxs):
        (a, b), (da, db) = xs, dxs
        still = isinstance(db, jax.custom_derivatives.SymbolicZero)
        return a * b, (b * da)[::-1] if still else b * da + a * db

    def f(x):
        return times(x, jax.lax.stop_gradient(x))

    assert not rows_apart(f, X)
    with pytest.raises(RowsMixError):
        batched_jacobian(f, X)


def test_a_batch_of_one_row_is_apart():
    assert rows_apart(lambda x: x * x.sum(), X[:1])


def test_every_result_must_be_apart():
    assert rows_apart(lambda x: (x, 2 * x), X)
    assert not rows_apart(lambda x: (x, x.sum(0)), X)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("column means", "reverse"),
        ("roll", "forward"),
        ("softmax of a column", "reverse"),
        ("a rule that mixes", "forward"),
    ],
)
def test_mixed_rows_are_refused(name, mode):
    x = jnp.concatenate([X] * 4).reshape(4, ROWS, ROWS)
    f = jax.vmap(MIXED[name], 1, 1)  # the rows of x are the first axis, and four columns of rows
    with pytest.raises(RowsMixError):
        batched_jacobian(f, x, mode=mode)
    assert np.isnan(jax.jit(lambda x: batched_jacobian(f, x, mode=mode))(x)).all()


@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_a_proof_leaves_nothing_to_be_checked(mode, monkeypatch):
    monkeypatch.setattr(sys.modules["polyad.operators.batched_jacobian"], "verified", None)
    J = jax.jit(lambda x: batched_jacobian(lambda x: jnp.tanh(x @ W), x, mode=mode))(X)
    np.testing.assert_allclose(J, (1 - jnp.tanh(X @ W) ** 2)[:, :, None] * W.T, rtol=1e-12)


def test_layers_are_proved_under_a_gradient():
    model = Chain(Dense(4, 8, "tanh"), LayerNorm(8), Dense(8, 8, "softplus"), Dense(8, 2))
    params, state = setup(0, model, backend="jax", dtype="float64")
    proved = []

    def loss(params, x):
        net = StatefulLayer(model, params, state)
        proved.append(rows_apart(net, x))
        return xp.sum(batched_jacobian(net, x) ** 2)

    slope = jax.jit(lambda params, x: gradient(loss, params, x))(params, X)
    assert proved == [True]
    value, h = jax.jit(loss), 1e-5
    above, below = (value(jax.tree.map(lambda p, s=s: p + s * jnp.cos(p), params), X) for s in (h, -h))
    along = sum(jnp.sum(a * jnp.cos(p)) for a, p in zip(trees.leaves(slope), trees.leaves(params), strict=True))
    assert abs(along) > 0.1
    np.testing.assert_allclose(along, (above - below) / (2 * h), rtol=1e-7)


def test_other_backends_prove_nothing_so():
    assert not get("numpy").proves_rows_apart(np.sin, np.ones((4, 4)))
