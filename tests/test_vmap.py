"""vmap: against formulas, with derivatives inside of it and around it, and what it refuses."""

import numpy as np
import pytest

import polyad
from polyad import (
    BatchNorm,
    Chain,
    Dense,
    Dropout,
    StatefulLayer,
    convert,
    derivative,
    explain,
    gradient,
    hessian,
    jacobian,
    laplacian,
    nested_switching,
    setup,
    test_mode,
    trees,
    use_backend,
    vmap,
    xp,
)
from polyad.backends import get
from polyad.errors import ArgumentError, ImpureFunctionError, LeafError, MixedArraysError, UnsupportedError
from tests.examples import arrays, compiled, difference, host

rng = np.random.default_rng(0)
W, X = np.array([0.5, -1.2, 0.8]), rng.normal(size=(6, 3))
WAVE = np.sin(X @ W)
SLOPE_W = np.cos(X @ W)[:, None] * X * np.sum(X**2, 1)[:, None]
SLOPE_X = np.cos(X @ W)[:, None] * W * np.sum(X**2, 1)[:, None] + 2 * WAVE[:, None] * X


@pytest.fixture(autouse=True)
def _of_this_backend(request):
    """ndarrays are arrays of the backend of the test."""
    if "backend" not in request.fixturenames:
        yield
        return
    with use_backend(request.getfixturevalue("backend")):
        yield


def point(w, x):
    return xp.sin(xp.sum(w * x)) * xp.sum(x * x)


def waves(w, x):
    return xp.sin(x * w)


def test_points_lie_along_the_axes_that_are_said(backend):
    w, x = arrays(backend, W, X)
    assert difference(vmap(point, (None, 0))(w, x), WAVE * np.sum(X**2, 1)) < 1e-14
    columns = xp.matrix_transpose(x)
    for axis in (1, -1, np.int64(1)):
        assert difference(vmap(point, (None, axis))(w, columns), WAVE * np.sum(X**2, 1)) < 1e-14
    assert difference(vmap(waves, (None, 0), 1)(w, x), np.sin(X * W).T) < 1e-14
    assert difference(vmap(waves, (None, 0), -1)(w, x), np.sin(X * W).T) < 1e-14
    assert difference(vmap(vmap(lambda a, b: a * b, (None, 0)), (0, None))(w, x[:, 0]), np.outer(W, X[:, 0])) < 1e-14


def test_trees_of_axes(backend):
    w, x = arrays(backend, W, X)
    two = {"w": w, "rows": [x, 2 * x], "nothing": None}
    some = ({"w": None, "rows": 0, "nothing": None}, None)
    both = vmap(
        lambda tree, c: {"sum": tree["w"] * sum(tree["rows"]), "c": (c, 1.0, 2, True)}, some, {"sum": 1, "c": 0}
    )
    found = both(two, 3.0)
    assert difference(found["sum"], (3 * W * X).T) < 1e-14
    assert [host(y)[0].tolist() for y in found["c"]] == [[3.0] * 6, [1.0] * 6, [2] * 6, [True] * 6]
    same = vmap(lambda x, w: (xp.sum(x), 2 * w), (0, None), (0, None))(x, w)
    assert difference(same, (np.sum(X, 1), 2 * W)) < 1e-14


def test_integers_are_mapped_and_keywords_are_not(backend):
    x, labels = arrays(backend, X), xp.asarray(np.arange(6) % 3)
    found = vmap(lambda x, i, *, scale: scale * x[0] * i)(x, labels, scale=2.0)
    assert difference(found, 2 * X[:, 0] * (np.arange(6) % 3)) < 1e-14
    assert vmap(lambda i: i + 1)(labels).dtype == labels.dtype


INSIDE = {
    "gradient": (lambda w, x: gradient(point, w, x), SLOPE_W),
    "gradient in x": (lambda w, x: gradient(point, w, x, argnums=1), SLOPE_X),
    "rows": (lambda w, x: jacobian(waves, w, x, mode="auto"), np.cos(X * W)[:, :, None] * np.eye(3) * X[:, None]),
    "columns": (lambda w, x: jacobian(waves, w, x, mode="forward"), np.cos(X * W)[:, :, None] * np.eye(3) * X[:, None]),
    "jvp": (lambda w, x: polyad.jvp(waves, (w, x), (x, w))[1], np.cos(X * W) * (X**2 + W**2)),
    "vjp": (lambda w, x: polyad.vjp(waves, w, x)[1](w)[0], np.cos(X * W) * X * W),
    "hvp": (lambda w, x: polyad.hvp(lambda w: xp.sum(waves(w, x)), (w,), (x,)), -np.sin(X * W) * X**3),
    "hessian": (
        lambda w, x: hessian(lambda w: xp.sum(waves(w, x)), w),
        -(np.sin(X * W) * X**2)[:, :, None] * np.eye(3),
    ),
    "laplacian": (lambda w, x: laplacian(lambda x: xp.sum(waves(w, x)), x), -np.sum(np.sin(X * W) * W**2, 1)),
    "divergence": (lambda w, x: polyad.divergence(lambda x: waves(w, x), x), np.cos(X * W) @ W),
    "derivative": (
        lambda w, x: derivative(lambda t: xp.sum(waves(w, t * x)), xp.sum(x), 2),
        -np.sum(np.sin(np.sum(X, 1)[:, None] * X * W) * (X * W) ** 2, 1),
    ),
    "gradient of a gradient": (
        lambda w, x: gradient(lambda w: xp.sum(gradient(lambda w: xp.sum(waves(w, x)), w) ** 2), w),
        -2 * np.cos(X * W) * np.sin(X * W) * X**3,
    ),
}


@pytest.mark.parametrize("operator", INSIDE)
def test_derivatives_of_single_points(backend, operator):
    f, expected = INSIDE[operator]
    w, x = arrays(backend, W, X)
    for chunk_size in (None, 4):
        found = compiled(backend, vmap(f, (None, 0), chunk_size=chunk_size))(w, x)
        assert difference(found, expected) < 1e-12


@pytest.mark.parametrize("policy", ["auto", "off", "recompute", "forward_over_reverse"])
def test_a_loss_of_gradients_of_points(backend, policy):
    """sum |df/dw|^2 of f = sin(w.x), of which x is captured in one way and an argument in another."""
    w, x = arrays(backend, W, X)
    slope = -2 * np.cos(X @ W) * np.sin(X @ W) * np.sum(X**2, 1)

    def loss(w, x):
        inner = gradient(lambda w, x: xp.sin(xp.sum(w * x)))
        captured = vmap(lambda i: gradient(lambda w: xp.sin(xp.sum(w * x[0])), w) + 0 * i)(x)
        return xp.sum(vmap(inner, (None, 0))(w, x) ** 2) + xp.sum(captured**2)

    with nested_switching(policy):
        found = gradient(loss, w, x)
        assert difference(found, (slope[:, None] * X).sum(0) + 6 * slope[0] * X[0]) < 1e-12
        if backend in ("jax", "torch"):
            compiled = polyad.compile(gradient(loss))(w, x)
            assert difference(compiled, host(found)[0]) < 1e-12


def test_inside_of_the_tools_of_the_frameworks():
    jax, torch = pytest.importorskip("jax"), pytest.importorskip("torch")
    expected = np.sum(-2 * np.cos(X @ W) * np.sin(X @ W) * np.sum(X**2, 1) * X.T, 1)

    def loss(w, x):
        return xp.sum(vmap(gradient(lambda w, x: xp.sin(xp.sum(w * x))), (None, 0))(w, x) ** 2)

    w, x = arrays("jax", W, X)
    assert difference(jax.jit(jax.grad(loss))(w, x), expected) < 1e-12
    assert difference(jax.vmap(jax.grad(loss), (None, 0))(w, x[:, None]).sum(0), expected) < 1e-12
    w, x = arrays("torch", W, X)
    assert difference(torch.func.grad(loss)(w, x), expected) < 1e-12
    loss(w.requires_grad_(), x).backward()
    assert difference(w.grad, expected) < 1e-12


def test_jets_go_through(backend):
    """Of one level and of two, in arguments and captured, with a part that all points share."""
    w, x = arrays(backend, W, X)
    rows = compiled(backend, laplacian(lambda x: vmap(lambda x: xp.sum(x**4))(x)))(x)
    assert difference(rows, 12 * np.sum(X**2, 1)) < 1e-12
    slopes = compiled(backend, laplacian(lambda x: vmap(gradient(lambda x: xp.sum(x**4)))(x)))(x)
    assert difference(slopes, 24 * X) < 1e-12

    def moment(t):
        mapped = vmap(lambda x: (xp.sum(xp.sin(t * x)), t**3), 0, (0, None))(x)
        return xp.sum(mapped[0]) + mapped[1]

    third = compiled(backend, derivative(moment, order=3))(w[0])
    assert difference(third, 6 - np.sum(X**3 * np.cos(W[0] * X))) < 1e-12

    def bend(t):
        return xp.sum(laplacian(lambda x: vmap(lambda x: xp.sum(xp.sin(t * x)))(x), x))

    two = compiled(backend, derivative(bend, order=2))(w[0])
    sin, cos, t = np.sin(W[0] * X), np.cos(W[0] * X), W[0]
    assert difference(two, np.sum(-2 * sin - 4 * t * X * cos + t**2 * X**2 * sin)) < 1e-12


def test_single_precision_stays(backend):
    w, x = convert((W, X), backend, dtype="float32")
    found = vmap(gradient(point), (None, 0))(w, x)
    assert found.dtype == w.dtype
    assert difference(found, SLOPE_W) < 1e-5


def test_no_points_and_one(backend):
    w, x = arrays(backend, W, X)
    for f, shape in ((gradient(point), (3,)), (jacobian(waves), (3, 3)), (hessian(point, argnums=1), (3, 3))):
        for n in (0, 1):
            both = vmap(lambda w, x, f=f: (f(w, x), 2 * w), (None, 0), (0, None))
            found, same = compiled(backend, both)(w, x[:n])
            assert tuple(found.shape) == (n, *shape)
            assert difference(same, 2 * W) < 1e-14
    assert host(gradient(lambda w: xp.sum(vmap(point, (None, 0))(w, x[:0])), w))[0].tolist() == [0, 0, 0]


def test_a_net_of_single_points(backend):
    model = Chain(Dense(3, 4, "tanh"), Dense(4, 2))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, X)
    net = StatefulLayer(model, params, state)
    assert difference(vmap(net)(x), host(net(x))[0]) < 1e-14
    rows = compiled(backend, vmap(jacobian(lambda params, x: net(x, params)), (None, 0)))(params, x)
    whole = compiled(backend, jacobian(lambda params: net(x, params)))(params)
    assert difference(trees.leaves(rows), [host(leaf)[0] for leaf in trees.leaves(whole)]) < 1e-12


def test_the_state_of_a_net(backend):
    """Read by all points, as it was; a net from outside whose state a plain call would change is refused."""
    model = Chain(Dense(3, 8, "tanh"), Dropout(0.5), Dense(8, 1))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, X)
    net = StatefulLayer(model, params, state)
    with pytest.raises(ImpureFunctionError, match=r"vmap: .* changes its state.*net\.state.*test_mode"):
        vmap(net)(x)
    assert int(net.state["layer_1"]["count"]) == 0
    slopes = compiled(backend, vmap(gradient(lambda params, x: net(x, params)[0]), (None, 0)))(params, x)
    assert int(net.state["layer_1"]["count"]) == 0
    first = compiled(backend, gradient(lambda params: net(x[1], params)[0]))(params)
    assert difference(slopes["layer_0"]["weight"][1], host(first["layer_0"]["weight"])[0]) < 1e-12

    def made(params, x):
        net = StatefulLayer(model, params, state)
        y = net(x)
        return y, net.state["layer_1"]["count"]

    assert host(vmap(made, (None, 0))(params, x)[1])[0].tolist() == [1] * 6
    y, count = vmap(made, (None, 0), (0, None))(params, x)
    assert int(count) == 1
    assert difference(vmap(StatefulLayer(model, params, test_mode(state)))(x), host(y)[0]) > 0.1  # it dropped some
    inside = compiled(backend, gradient(lambda params: xp.sum(vmap(lambda x: net(x, params))(x))))(params)
    outside = compiled(backend, gradient(lambda params: xp.sum(vmap(made, (None, 0))(params, x)[0])))(params)
    assert difference(trees.leaves(inside), [host(leaf)[0] for leaf in trees.leaves(outside)]) < 1e-12


def test_statistics_of_sets_of_points(backend):
    model = BatchNorm(3, affine=False)
    params, state = setup(0, model, backend=backend, dtype="float64")
    sets = arrays(backend, np.stack([X, 2 * X + 1]))
    with pytest.raises(ImpureFunctionError, match="changes its state"):
        vmap(StatefulLayer(model, params, state))(sets)

    def made(x):
        net = StatefulLayer(model, params, state)
        y = net(x)
        return y, net.state["mean"]

    y, mean = vmap(made)(sets)
    assert difference(mean, 0.1 * np.stack([X.mean(0), 2 * X.mean(0) + 1])) < 1e-6
    assert difference(y[1], (X - X.mean(0)) / np.sqrt(X.var(0) + 1e-5 / 4)) < 1e-6
    with pytest.raises(ArgumentError, match=r"out_axes has None for f\(\.\.\.\)\[1\], but that is not the same"):
        vmap(made, 0, (0, None))(sets)


REFUSED = {
    "no function": (lambda w, x: vmap(w), ArgumentError, r"not a function. Type vmap\(f\)\(x\)"),
    "at once": (lambda w, x: vmap(point, x), ArgumentError, r"in_axes holds a .*\(6, 3\).*type vmap\(f\)\(x\)"),
    "a float": (lambda w, x: vmap(point, 0.5), ArgumentError, "0.5 of type float; an axis is an int"),
    "chunk_size": (lambda w, x: vmap(point, chunk_size=0), ArgumentError, "chunk_size=0"),
    "no arguments": (lambda w, x: vmap(point)(), ArgumentError, "no arguments"),
    "too few": (lambda w, x: vmap(point, (0,))(w, x), ArgumentError, "1 entries for 2 arguments"),
    "nothing mapped": (lambda w, x: vmap(point, None)(w, x), ArgumentError, r"in_axes=\(None, 0\)"),
    "no arrays": (lambda w, x: vmap(lambda d, x: x, ({}, None))({}, x), ArgumentError, "maps no argument"),
    "sizes": (lambda w, x: vmap(point)(w, x), ArgumentError, "w has 3 along axis 0, x has 6 along axis 0"),
    "no such axis": (
        lambda w, x: vmap(point, (None, 2))(w, x),
        ArgumentError,
        r"x is a .*\(6, 3\), which has no axis 2",
    ),
    "another tree": (
        lambda w, x: vmap(point, (None, {"a": 0}))(w, x),
        ArgumentError,
        r"in_axes has \{'a': 0\} for x, which is the tree \*",
    ),
    "a number": (lambda w, x: vmap(point)(0.5, x), LeafError, "w is 0.5 of type float.*Give None"),
    "a keyword": (lambda w, x: vmap(lambda x, k: x * k)(x, k=w), ArgumentError, "the keyword k holds an array"),
    "a text": (lambda w, x: vmap(lambda x: {"a": "text"})(x), LeafError, r"returned 'text'.* at \['a'\]"),
    "no such output": (lambda w, x: vmap(point, (None, 0), 2)(w, x), ArgumentError, r"out_axes=2.*shape \(\)"),
    "another output": (lambda w, x: vmap(point, (None, 0), [0])(w, x), ArgumentError, r"out_axes=\[0\].*tree \*"),
    "not shared": (lambda w, x: vmap(point, (None, 0), None)(w, x), ArgumentError, r"None for f\(\.\.\.\), but"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses(backend, name):
    call, error, words = REFUSED[name]
    w, x = arrays(backend, W, X)
    with pytest.raises(error, match=words):
        call(w, x)
    assert difference(vmap(point, (None, 0))(w, x), WAVE * np.sum(X**2, 1)) < 1e-14


def test_values_are_looked_at_in_loops_alone(backend):
    x = arrays(backend, X)

    def bent(x):
        return x if x[0] > 0 else 2 * x

    if get(backend).batches:
        with pytest.raises(UnsupportedError, match=r"vmap: f looks at the value of an array.*xp\.where"):
            vmap(bent)(x)
    else:
        assert difference(vmap(bent)(x), np.where(X[:, :1] > 0, X, 2 * X)) < 1e-14
        with pytest.raises(ArgumentError, match=r"shapes \(3,\) for point .* \(2,\)|\(2,\) for point .*\(3,\)"):
            vmap(lambda x: x if x[0] > 0 else x[:2])(x)
        with pytest.raises(ArgumentError, match=r"returned the tree .* for one point"):
            vmap(lambda x: x if x[0] > 0 else {"x": x})(x)


def test_torch_draws_no_random_numbers_there():
    torch = pytest.importorskip("torch")
    with pytest.raises(UnsupportedError, match="vmap: f draws random numbers"):
        vmap(lambda x: x * torch.rand(3))(arrays("torch", X))


def test_arrays_of_two_frameworks():
    pytest.importorskip("jax"), pytest.importorskip("torch")
    with pytest.raises(MixedArraysError, match="vmap: w is an array of torch, x of jax"):
        vmap(point, (None, 0))(arrays("torch", W), arrays("jax", X))


def test_rows_that_torch_batches_wrongly_go_one_by_one():
    torch = pytest.importorskip("torch")
    x, centres = arrays("torch", rng.normal(size=(5, 4, 3)), rng.normal(size=(2, 3)))
    rows = vmap(jacobian(lambda x: torch.cdist(x, centres), mode="reverse"))(x)
    apart = x[:, :, None] - centres
    slope = apart / apart.norm(dim=-1, keepdim=True)
    expected = torch.einsum("bpcj,pq->bpcqj", slope, torch.eye(4, dtype=x.dtype))
    assert difference(rows, expected.numpy()) < 1e-12


def test_explain_shows_how_points_are_taken(backend, capsys):
    w, x = arrays(backend, W, X)
    explain(vmap(gradient(point), (None, 0)), w, x)
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0]
        == {
            True: f"vmap on {backend}: batch, 1 sweep: 6 points",
            False: f"vmap on {backend}: loop, 6 sweeps: {backend} has no vmap",
        }[get(backend).batches]
    )
    assert lines[1].startswith(f"    gradient on {backend}: ")
    explain(gradient, lambda w: xp.sum(vmap(point, (None, 0))(w, x)), w)
    assert "    vmap on" in capsys.readouterr().out


def test_on_jax_it_is_the_same_program():
    jax = pytest.importorskip("jax")
    w, x = arrays("jax", W, X)

    def instructions(f):
        return jax.jit(f).lower(w, x).compile().as_text().count(" = ")

    ours, own = vmap(gradient(point), (None, 0)), jax.vmap(jax.grad(point), (None, 0))
    assert instructions(ours) == instructions(own)


def test_masks_of_single_points(backend):
    """Keys that are mapped give each point a mask of its own, that of a call with this key."""
    model = Chain(Dense(3, 16), Dropout(0.5))
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, X)
    words = np.random.default_rng(1).integers(0, 2**31, (6, 2)).astype(np.int32)
    keys = {"layer_0": {}, "layer_1": {**state["layer_1"], "key": convert(words, backend)}}
    axes = {"layer_0": None, "layer_1": {"key": 0, "count": None, "mode": None}}
    found = host(vmap(lambda x, state: StatefulLayer(model, params, state)(x), (0, axes))(x, keys))[0]
    for i, word in enumerate(words):
        own = {"layer_0": {}, "layer_1": {**state["layer_1"], "key": convert(word, backend)}}
        assert difference(found[i], host(StatefulLayer(model, params, own)(x[i]))[0]) < 1e-14
    assert len({tuple(row) for row in found != 0}) > 3
