"""Rows that mix, and jets that mean something else, seen from a few rows or from all of them."""

import numpy as np
import pytest

import polyad
from polyad import BatchNorm, Chain, Dense, divergence, explain, gradient, laplacian, setup, xp
from polyad.operators import by_jets
from tests.examples import arrays, difference, host

B = 100
X = np.random.Generator(np.random.Philox(21)).normal(size=(B, 2))
HELD = np.linspace(1.0, 2.0, B)[:, None]

MIXING = {
    "mean": lambda x: xp.sin(x) - xp.mean(x**2, axis=0),
    "sum": lambda x: x**2 * xp.sum(x),
    "first": lambda x: x**2 - x[:1] ** 3,
    "last": lambda x: x**2 - x[-1:] ** 3,
    "before": lambda x: xp.cumulative_sum(x**2, axis=0),
    "pairs": lambda x: x**2 + xp.flip(x, axis=0) ** 3,
    "one row": lambda x: xp.concat([x[:5] ** 2, x[5:6] * x[9:10], x[6:] ** 2]),
    "one row by its number": lambda x: xp.concat([x[:-1] ** 2, xp.sum(x**3, axis=0)[None, :]]),
    "far": lambda x: x * xp.concat([x[50:], x[:50]]) if x.shape[0] == B else x * x,
}


@pytest.fixture
def asked(monkeypatch):
    """How often all rows were asked."""
    calls = []
    for name in ("_pulled_rows", "_pushed_rows"):
        f = getattr(by_jets, name)
        monkeypatch.setattr(by_jets, name, lambda *args, f=f: calls.append(1) or f(*args))
    return calls


@pytest.mark.parametrize("name", MIXING)
def test_rows_that_mix_are_refused(backend, name):
    x = arrays(backend, X)
    for operator in (laplacian, divergence):
        with pytest.raises(polyad.errors.RowsMixError):
            operator(MIXING[name], x, backend=backend)
    if backend == "jax":
        compiled = polyad.backends.get(backend).compile(lambda x: (xp.sum(laplacian(MIXING[name], x)),))
        assert np.isnan(host(compiled(x))[0])


@pytest.mark.parametrize("rows", [3, B])
@np.errstate(all="ignore")
def test_an_infinite_derivative_of_one_row_hides_no_others_that_mix(backend, rows):
    x = arrays(backend, np.arange(rows * 2.0).reshape(rows, 2))
    mode = "forward"  # autograd's backward pass makes NaN of all rows
    alone = polyad.batched_jacobian(lambda x: xp.sqrt(x), x, backend=backend, mode=mode)
    assert np.isinf(host(alone)[0][0, 0, 0])
    with pytest.raises(polyad.errors.RowsMixError):
        polyad.batched_jacobian(lambda x: xp.sqrt(x) + xp.flip(x, axis=0) ** 2, x, backend=backend, mode=mode)


def test_batch_norm_in_training_mode_is_refused(backend):
    model = Chain(Dense(2, 4, "tanh"), BatchNorm(4), Dense(4, 2))
    params, state = setup(0, model, backend=backend, dtype="float64")
    net = polyad.StatefulLayer(model, params, state)
    x = arrays(backend, X)
    with polyad.use_backend(backend):
        for operator in (laplacian, divergence):
            with pytest.raises(polyad.errors.RowsMixError):
                operator(net, x)
    assert net.state is state


def test_independent_rows_are_asked_few_alone(backend, asked):
    x, w = arrays(backend, X, np.array([1.5, -0.5]))

    def field(x):
        u = xp.sin(w * x)
        return u, {"u": u, "rows": x.shape[0]}

    laps, aux = laplacian(field, x, has_aux=True, backend=backend)
    assert not asked
    expected = -(host(w)[0] ** 2) * np.sin(host(w)[0] * X)
    assert difference(laps, expected) < 1e-13
    assert aux["rows"] == B
    assert difference(aux["u"], np.sin(host(w)[0] * X)) < 1e-14


def test_rows_that_f_holds_are_asked_all(backend, asked):
    x, held = arrays(backend, X, HELD)
    actual = laplacian(lambda x: xp.cumulative_sum(held * xp.sin(x), axis=1), x, backend=backend)
    assert difference(actual, -HELD * np.cumsum(np.sin(X), axis=1)) < 1e-13
    assert len(asked) == (backend != "jax")  # whose program proves it


def test_under_jit_what_the_few_cannot_tell_all_rows_do():
    jax = pytest.importorskip("jax")
    x, held = arrays("jax", X, HELD)

    def loss(w, x):
        return xp.sum(laplacian(lambda x: xp.sin(w * x) * held if x.shape[0] == B else xp.cos(w * x), x) ** 2)

    w, s = 1.5, np.sin(1.5 * X)
    value = (1.5**4 * HELD**2 * s**2).sum()
    slope = (4 * w**3 * HELD**2 * s**2 + 2 * w**4 * HELD**2 * s * np.cos(w * X) * X).sum()
    found = jax.jit(jax.value_and_grad(loss))(arrays("jax", 1.5), x)
    assert difference(found, (np.array(value), np.array(slope))) < 1e-12
    twice = jax.jit(jax.vmap(jax.grad(loss), in_axes=(0, None)))(arrays("jax", np.array([1.5, 1.5])), x)
    assert difference(twice, np.array([slope, slope])) < 1e-12
    assert difference(jax.jit(jax.jacfwd(loss))(arrays("jax", 1.5), x), np.array(slope)) < 1e-12


def test_rules_of_torch_that_jets_do_not_see_are_kept_where_rows_are_many():
    torch = pytest.importorskip("torch")

    class Fivefold(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(*[x] if isinstance(x, torch.Tensor) else [])
            return x * x

        @staticmethod
        def backward(ctx, cotangent):
            return 5 * ctx.saved_tensors[0] * cotangent

    def constant(x):
        with torch.no_grad():
            constant = x**2
        return constant * x**2

    x = arrays("torch", X)
    assert difference(laplacian(lambda x: Fivefold.apply(x) + x**2, x), np.full(X.shape, 7.0)) < 1e-14
    assert difference(laplacian(constant, x), 2 * X**2) < 1e-14
    assert "no_grad() or an autograd.Function in f" in str(explain(laplacian, constant, x))


def test_random_numbers_of_f_are_drawn_once_for_all_its_rows():
    torch = pytest.importorskip("torch")
    x = arrays("torch", X)
    torch.manual_seed(3)
    actual = laplacian(lambda x: torch.rand(x.shape, dtype=x.dtype) * x**3, x)
    factors = actual / (6 * x)
    assert factors.min() >= 0
    assert factors.max() <= 1
    assert factors.std() > 0.2


def test_the_gradient_of_a_laplacian_of_many_rows(backend):
    x, w = arrays(backend, X, np.array([1.5, -0.5]))
    actual = gradient(lambda w: xp.sum(laplacian(lambda x: xp.sin(w * x), x) ** 2), w, backend=backend)
    v = host(w)[0]
    expected = (4 * v**3 * np.sin(v * X) ** 2 + 2 * v**4 * np.sin(v * X) * np.cos(v * X) * X).sum(0)
    assert difference(actual, expected) < 1e-12


@pytest.mark.parametrize("batch", [5, 16, 40, 64, 100])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_under_jit_rows_that_mix_are_nan_and_others_are_right_however_many_there_are(batch, mode):
    jax = pytest.importorskip("jax")
    w = np.random.Generator(np.random.Philox(5)).normal(size=(3, 2))
    x = np.random.Generator(np.random.Philox(6)).normal(size=(batch, 3))

    def jac(mixing):
        return jax.jit(lambda x: polyad.batched_jacobian(lambda x: xp.tanh(mixing(x) @ w), x, mode=mode))(x)

    expected = (1 - np.tanh(x @ w) ** 2)[:, :, None] * w.T
    np.testing.assert_allclose(jac(lambda x: x), expected, rtol=1e-12)
    for mixing in (lambda x: x - xp.mean(x, axis=0), lambda x: x[::-1], lambda x: xp.roll(x, 1, axis=0)):
        assert np.all(np.isnan(jac(mixing)))
