"""What a framework does itself agrees with the primitives, in every mode and to the third order."""

import functools

import numpy as np
import pytest

import polyad
from polyad import (
    Chain,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GroupNorm,
    GRUCell,
    LSTMCell,
    MaxPool,
    MeanPool,
    MultiHeadAttention,
    Recurrence,
    StatefulLayer,
    setup,
    trees,
    xp,
)
from polyad.arrays import operation
from polyad.layers.convolution import convolution
from polyad.layers.moments import centred, rsqrt
from polyad.layers.pooling import max_pool, mean_pool
from polyad.layers.recurrence import scan
from polyad.layers.windows import pads
from tests.examples import arrays, difference, host
from tests.layer_cases import on

GENERATOR = np.random.Generator(np.random.Philox(23))
KERNELS = {
    "1-d": ((2, 7, 3), (3, 3, 4), {"stride": (2,), "padding": ((1, 1),), "dilation": (1,), "groups": 1}),
    "dilated": ((2, 9, 2), (2, 2, 4), {"stride": (1,), "padding": ((0, 2),), "dilation": (3,), "groups": 1}),
    "2-d": (
        (2, 5, 4, 2),
        (2, 3, 2, 3),
        {"stride": (1, 2), "padding": ((1, 0), (2, 2)), "dilation": (2, 1), "groups": 1},
    ),
    "depthwise": ((2, 5, 4), (2, 1, 8), {"stride": (1,), "padding": ((1, 1),), "dilation": (1,), "groups": 4}),
    "3-d": (
        (1, 3, 3, 2, 2),
        (2, 2, 1, 1, 2),
        {"stride": (1,) * 3, "padding": ((0, 0),) * 3, "dilation": (1,) * 3, "groups": 2},
    ),
}


def by_hand(x, weight, stride, padding, dilation, groups):
    """The sum of the definition, entry by entry, in NumPy."""
    x = np.pad(x, ((0, 0), *padding, (0, 0)))
    window, inner, outputs = weight.shape[:-2], *weight.shape[-2:]
    out = [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[1:-1], window, stride, dilation, strict=True)]
    y = np.zeros((x.shape[0], *out, outputs))
    for place in np.ndindex(*out):
        for o in range(outputs):
            first = o // (outputs // groups) * inner
            for offset in np.ndindex(*window):
                at = tuple(p * s + k * d for p, s, k, d in zip(place, stride, offset, dilation, strict=True))
                y[(slice(None), *place, o)] += (
                    x[(slice(None), *at, slice(first, first + inner))] @ weight[(*offset, slice(None), o)]
                )
    return y


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_convolution_is_its_definition(name, backend):
    shape, kernel, options = KERNELS[name]
    x, weight = GENERATOR.normal(size=shape), GENERATOR.normal(size=kernel)
    expected = by_hand(x, weight, **options)
    for f in (convolution, convolution.primitive):
        y = f(*arrays(backend, x, weight), **options)
        assert difference(y, expected) < 1e-13
        assert type(y) is type(arrays(backend, x))


def third(f, x, weight, modes, backend):
    """A third derivative of f in both arguments, in these modes from the inside out."""
    inner, middle, outer = modes

    def slope(x, weight):
        return polyad.gradient(f, x, weight, argnums=(0, 1), mode=inner, backend=backend)

    def curvature(x, weight):
        return polyad.gradient(
            lambda x, weight: sum(xp.sum(xp.sin(s)) for s in slope(x, weight)),
            x,
            weight,
            argnums=1,
            mode=middle,
            backend=backend,
        )

    return polyad.gradient(
        lambda x, weight: xp.sum(curvature(x, weight) ** 2), x, weight, argnums=(0, 1), mode=outer, backend=backend
    )


@pytest.mark.parametrize("modes", ["rrr", "frr", "rfr", "rrf", "ffr"])
@pytest.mark.parametrize("name", ["1-d", "2-d", "depthwise"])
def test_a_native_convolution_has_the_derivatives_of_the_primitives_on_torch(name, modes):
    pytest.importorskip("torch")
    check_third("torch", name, modes)


@pytest.mark.parametrize(("name", "modes"), [("2-d", "rrr"), ("1-d", "rfr")])
def test_a_native_convolution_has_the_derivatives_of_the_primitives_on_jax(name, modes):
    pytest.importorskip("jax")
    check_third("jax", name, modes)


def check_third(backend, name, modes):
    shape, kernel, options = KERNELS[name]
    x, weight = arrays(backend, GENERATOR.normal(size=shape), GENERATOR.normal(size=kernel))
    words = [{"r": "reverse", "f": "forward"}[m] for m in modes]

    def compute(x, weight, native):
        f = functools.partial(convolution if native else convolution.primitive, **options)
        return third(lambda x, weight: xp.sum(xp.tanh(f(x, weight))), x, weight, words, backend)

    actual = on(backend, functools.partial(compute, native=True), x, weight)
    assert (
        difference(
            actual, on("torch" if backend == "torch" else "jax", functools.partial(compute, native=False), x, weight)
        )
        < 1e-10
    )


@pytest.mark.parametrize("modes", ["rrr", "frr", "rfr", "rrf", "ffr"])
@pytest.mark.parametrize("axes", [(0,), (-1,), (0, 1)])
def test_native_moments_have_the_derivatives_of_the_primitives_on_torch(axes, modes):
    pytest.importorskip("torch")
    x, weight = arrays("torch", GENERATOR.normal(size=(4, 3, 2)), GENERATOR.normal(size=(2,)))
    words = [{"r": "reverse", "f": "forward"}[m] for m in modes]

    def compute(centred, rsqrt):
        def normed(x, weight):
            y, mean, var = centred(x, axes=axes)
            return xp.sum(xp.tanh(y * weight * rsqrt(var + 0.1) + mean * mean))

        return third(normed, x, weight, words, "torch")

    actual = compute(centred, rsqrt)
    assert difference(actual, compute(centred.primitive, rsqrt.primitive)) < 1e-10


@pytest.mark.parametrize("modes", ["rrr", "frr", "rfr", "rrf", "ffr"])
@pytest.mark.parametrize("pool", [max_pool, mean_pool])
def test_a_native_pool_has_the_derivatives_of_the_primitives_on_torch(pool, modes):
    torch = pytest.importorskip("torch")
    x, weight = arrays("torch", GENERATOR.normal(size=(2, 6, 5, 2)), GENERATOR.normal(size=(2,)))
    words = [{"r": "reverse", "f": "forward"}[m] for m in modes]
    for padding in (((1, 0), (0, 1)), ((1, 1), (1, 1))):
        options = {"window": (3, 2), "stride": (2, 1), "padding": padding}

        def found(f, options=options):
            return third(lambda x, w: xp.sum(xp.tanh(w * f(xp.sin(x), **options))), x, weight, words, "torch")

        assert difference(found(pool), found(pool.primitive)) < 1e-10
        batched = torch.func.vmap(lambda row, options=options: pool(row[None], **options)[0])(x)
        assert difference(batched, pool.primitive(x, **options)) < 1e-14


def test_scan_is_one_loop_for_a_compiler_and_agrees_with_the_steps():
    jax = pytest.importorskip("jax")
    layer = Recurrence(LSTMCell(3, 4))
    params, state = setup(0, layer, backend="jax", dtype="float64")
    x = arrays("jax", GENERATOR.normal(size=(2, 6, 3)))

    def loss(params, x, run):
        _, ys = run(layer.cell.step, layer.cell.start(x), xp.moveaxis(layer.cell.project(x, params), 1, 0), params)
        return xp.sum(xp.sin(ys))

    def both(run):
        return jax.jit(jax.grad(functools.partial(loss, run=run), argnums=(0, 1)))

    assert "scan" in str(jax.make_jaxpr(lambda x: jax.jit(lambda x: layer(x, params, state)[0])(x))(x))
    assert difference(both(scan)(params, x), both(scan.primitive)(params, x)) < 1e-13


def test_a_native_operation_is_used_and_one_that_declines_leaves_the_call_to_the_primitives(registry, monkeypatch):
    torch = pytest.importorskip("torch")
    adapter = polyad.backends.get("torch")
    calls = []

    @operation
    def twice(x, *, k):
        """In primitives."""
        return k * x

    def native(x, *, k):
        calls.append(type(x))
        return NotImplemented if k == 3 else x * k + 1

    monkeypatch.setattr(type(adapter), "native", {"twice": native})
    x = torch.ones(2, dtype=torch.float64)
    assert twice(x, k=2).tolist() == [3.0, 3.0]
    assert twice(x, k=3).tolist() == [3.0, 3.0]
    assert twice(np.ones(2), k=2).tolist() == [2.0, 2.0]
    assert calls == [torch.Tensor] * 2
    polyad.jets.pushforwards(lambda x: (twice(x, k=2),), (x,), (x[None],))
    assert len(calls) == 2  # a jet goes through the primitives


@pytest.mark.parametrize(
    ("n", "window", "stride", "dilation"), [(7, 3, 2, 1), (7, 3, 1, 2), (6, 2, 3, 1), (5, 4, 2, 1), (1, 3, 1, 1)]
)
def test_same_padding_is_that_of_xla(n, window, stride, dilation):
    jax = pytest.importorskip("jax")
    x = np.zeros((1, n, 1))
    pairs = pads(None, x, (window,), (stride,), (dilation,), "same")
    reach = (window - 1) * dilation + 1
    assert pairs == tuple(jax.lax.padtype_to_pads((n,), (reach,), (stride,), "SAME"))


def test_of_equal_entries_the_first_takes_the_derivative_as_in_torch(backend):
    torch = pytest.importorskip("torch")
    x = np.array([[[1.0], [1.0], [1.0], [2.0], [2.0], [0.0]]])
    weights = np.array([[[1.0], [10.0], [100.0], [1000.0]]])
    layer = MaxPool(3, stride=1)

    def f(x):
        return xp.sum(xp.multiply(layer(x, {}, {})[0], weights))

    z = torch.from_numpy(x).movedim(-1, 1).requires_grad_()
    (torch.nn.functional.max_pool1d(z, 3, 1) * torch.from_numpy(weights).movedim(-1, 1)).sum().backward()
    expected = z.grad.movedim(1, -1).numpy()
    assert host(expected)[0].ravel().tolist() == [1.0, 0.0, 0.0, 1110.0, 0.0, 0.0]
    assert difference(polyad.gradient(f, arrays(backend, x), backend=backend), expected) == 0.0


def test_the_largest_of_a_window_is_nan_where_one_is_and_padding_never_wins(backend):
    x = np.array([[[-3.0], [np.nan], [-5.0], [-1.0], [-2.0], [-7.0]]])
    y, _ = MaxPool(2)(arrays(backend, x), {}, {})
    assert host(y)[0].ravel().tolist()[1:] == [-1.0, -2.0]
    assert np.isnan(host(y)[0].ravel()[0])
    y, _ = MaxPool(3, stride=2, padding=1)(arrays(backend, x[:, 2:]), {}, {})
    assert host(y)[0].ravel().tolist() == [-1.0, -1.0]


@pytest.mark.parametrize("layer", [Conv(2, 3, 3), MaxPool(2), MeanPool(2), Dense(2, 3)])
def test_an_empty_batch_gives_an_empty_batch(layer, backend):
    params, state = setup(0, layer, backend=backend, dtype="float64")
    y, _ = layer(arrays(backend, np.zeros((0, 6, 2))), params, state)
    assert tuple(y.shape) == {"Conv": (0, 4, 3), "Dense": (0, 6, 3)}.get(type(layer).__name__, (0, 3, 2))


@pytest.mark.parametrize("backend", ["autograd", "torch"])
def test_whatever_a_nested_derivative_keeps_layers_give_the_same(backend):
    pytest.importorskip(backend)
    model = Chain(
        Conv(2, 3, (3, 3), "tanh", padding=((1, 0), (0, 1))),
        MaxPool((2, 2), padding="same"),
        GroupNorm(3, 3),
        lambda x: xp.reshape(x, (x.shape[0], 9, 3)),
        Recurrence(GRUCell(3, 4)),
        MultiHeadAttention(4, 2),
        Dropout(0.3),
        Flatten(),
        Dense(36, 2),
    )
    params, state = setup(0, model, backend=backend, dtype="float64")
    x = arrays(backend, GENERATOR.normal(size=(3, 6, 6, 2)))

    def loss(params, x):
        net = StatefulLayer(model, params, state)
        slope = polyad.gradient(lambda x: xp.sum(net(x) ** 2), x)
        return xp.sum(net(x) ** 2) + xp.sum(slope**3)

    found = {}
    for strategy in ("taped", "recompute", "forward_over_reverse"):
        with polyad.nested_switching(strategy):
            found[strategy] = host(polyad.gradient(loss, params, x, argnums=(0, 1), backend=backend))
    scale = max(np.abs(leaf).max() for leaf in found["taped"])
    assert scale > 0.1
    for strategy in ("recompute", "forward_over_reverse"):
        for a, b in zip(found[strategy], found["taped"], strict=True):
            assert np.abs(a - b).max() < 1e-12 * scale


def _torch_transforms():
    torch = pytest.importorskip("torch")
    from torch.autograd import forward_ad
    from torch.fx.experimental.proxy_tensor import make_fx

    func, checkpoint = torch.func, torch.utils.checkpoint.checkpoint

    def by_dual_numbers(f, x, w, b):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(x, x + 1), w, forward_ad.make_dual(b, b))).tangent

    def three_times_by_the_tape(f, x, w, b):
        x, w = x.clone().requires_grad_(), w.clone().requires_grad_()
        y = torch.sum(f(x, w, b) ** 3)
        for _ in range(2):
            y = sum(torch.sum(g**2) for g in torch.autograd.grad(y, (x, w), create_graph=True))
        return torch.autograd.grad(y, (x, w))

    def checkpointed(f, x, w, b):
        w = w.clone().requires_grad_()
        return torch.autograd.grad(torch.sum(checkpoint(f, x, w, b, use_reentrant=False) ** 2), w)

    def moved(f, x, w, b):
        w = w.clone().requires_grad_()
        with torch.autograd.graph.save_on_cpu():
            y = f(x, w, b)
        return torch.autograd.grad(torch.sum(y**2), w)

    def one_row(f, x, w, b):
        return f(x[None], w, b)[0]

    return {
        "value": lambda f, *args: f(*args),
        "no rows": lambda f, x, w, b: f(x[:0], w, b),
        "points": lambda f, x, w, b: func.vmap(f, (0, None, None))(torch.stack((x, 2 * x)), w, b),
        "weights": lambda f, x, w, b: func.vmap(f, (None, 0, None))(x, torch.stack((w, 2 * w)), b),
        "forward in reverse": lambda f, *args: func.jacfwd(func.jacrev(f, (0, 1)), 2)(*args),
        "reverse in forward": lambda f, *args: func.jacrev(func.jacfwd(f, 1), (0, 2))(*args),
        "forward of rows": lambda f, *args: func.vmap(func.jacfwd(lambda *a: one_row(f, *a)), (0, None, None))(*args),
        "traced": lambda f, x, w, b: make_fx(func.jacrev(f, 1))(x, w, b)(2 * x, w, b),
        "dual numbers": by_dual_numbers,
        "tape": three_times_by_the_tape,
        "checkpoint": checkpointed,
        "saved elsewhere": moved,
    }


TRANSFORMS = (
    *("value", "no rows", "points", "weights", "forward in reverse", "reverse in forward", "forward of rows"),
    *("traced", "dual numbers", "tape", "checkpoint", "saved elsewhere"),
)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_tanh_in_the_place_of_what_it_is_of_is_tanh_for_all_of_torch(name):
    torch = pytest.importorskip("torch")
    layer = Dense(3, 4, "tanh")
    x, w, b = (torch.asarray(GENERATOR.normal(size=shape)) for shape in ((5, 3), (3, 4), (4,)))
    transformed = _torch_transforms()[name]
    actual = transformed(lambda x, w, b: layer(x, {"weight": w, "bias": b}, {})[0], x, w, b)
    expected = transformed(lambda x, w, b: torch.tanh(x @ w + b), x, w, b)
    for mine, its in zip(trees.leaves(actual), trees.leaves(expected), strict=True):
        assert mine.shape == its.shape
        assert torch.allclose(mine, its, rtol=1e-11, atol=1e-13)
        assert not its.numel() or its.abs().max() > 0.05


def test_a_graph_of_torch_has_no_write_in_it():
    torch = pytest.importorskip("torch")
    from torch.fx.experimental.proxy_tensor import make_fx

    layer, (params, _) = Dense(3, 4, "tanh"), setup(0, Dense(3, 4, "tanh"), backend="torch", dtype="float64")
    x = torch.ones((5, 3), dtype=torch.float64)
    names = [str(node.target) for node in make_fx(lambda x: layer(x, params, {})[0])(x).graph.nodes]
    assert "aten.tanh.default" in names
    assert not any("tanh_" in name for name in names)
