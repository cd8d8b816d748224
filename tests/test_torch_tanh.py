"""A tanh layer of torch as one kernel and one step of the tape, against the same layer function by function."""

import contextlib

import numpy as np
import pytest

from polyad import (
    Chain,
    Dense,
    StatefulLayer,
    batched_jacobian,
    gradient,
    hessian,
    hvp,
    jacobian,
    jvp,
    laplacian,
    nested_switching,
    setup,
    trees,
    vjp,
    vmap,
    xp,
)
from tests.examples import difference

torch = pytest.importorskip("torch")
torch_native = pytest.importorskip("polyad.backends.torch_native")
torch_tanh = pytest.importorskip("polyad.backends.torch_tanh")

MODEL = Chain(Dense(3, 8, "tanh"), Dense(8, 8, "tanh"), Dense(8, 2))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """No layer is too small for it."""
    monkeypatch.setattr(torch_native, "LARGE", 0)


@pytest.fixture
def kernels(monkeypatch):
    """How often the kernel ran."""
    ran, kernel = [], torch_tanh._kernel
    monkeypatch.setattr(torch_tanh, "_kernel", lambda *args: ran.append(1) or kernel(*args))
    return ran


def drawn(*shapes, dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes]


def layer(x, weight, bias):
    y = torch_native.NATIVE["activated"](x, weight, bias, activation=xp.tanh)
    assert type(y.grad_fn) is torch_tanh.Node
    return y


def needs_kernel():
    if not torch_tanh._works():
        pytest.skip("this torch or this processor has no such kernel")


def test_the_kernel_is_there_on_this_machine():
    """Else nothing here says anything: torch's builds for x86 have it."""
    assert torch_tanh._works() or not torch.backends.mkldnn.is_available()


@pytest.mark.parametrize("rows", [2, 7, 64])
def test_values_are_those_of_torch_to_the_last_digits(rows):
    needs_kernel()
    x, weight, bias = drawn((rows, 5), (5, 9), (9,))
    exact = torch.tanh(torch.addmm(bias.double(), x.double(), weight.double()))
    assert torch.allclose(layer(x, weight, bias).double(), exact, rtol=1e-5, atol=2e-7)


def test_special_values_are_those_of_torch():
    needs_kernel()
    special = torch.tensor([[float("nan")], [float("inf")], [-float("inf")], [1e-38], [1e-6], [-0.3], [30.0], [-1e30]])
    weight, bias = torch.ones(1, 3), torch.zeros(3)
    found = torch_tanh.tanh_of_affine(special, weight, bias)
    assert torch.allclose(found, torch.tanh(special @ weight), rtol=1e-6, atol=0.0, equal_nan=True)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.cat([x, x], 1)[:, ::2],
        lambda x: torch.cat([x, x], 0)[::2],
        lambda x: x[:1].expand(len(x), -1),
        lambda x: x.flip(0),
    ],
    ids=["transposed", "every other column", "every other row", "one row for all", "turned round"],
)
def test_any_strides(arrange):
    needs_kernel()
    x, weight, bias = drawn((8, 6), (6, 4), (4,))
    for given in ((arrange(x), weight, bias), (x, arrange(weight.t()[:, :6]).t(), bias)):
        assert torch.allclose(layer(*given), torch.tanh(torch.addmm(given[2], given[0], given[1])), atol=2e-6)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda bias: torch.stack([bias, -bias], 1)[:, 0],
        lambda bias: bias[:1].expand(4),
        lambda bias: torch.cat([bias, bias])[::2],
    ],
    ids=["a column", "one number for all", "every other"],
)
def test_a_bias_whose_entries_do_not_stand_side_by_side(arrange):
    """The kernel itself takes other entries for them."""
    needs_kernel()
    x, weight, bias = drawn((8, 6), (6, 4), (4,))
    expected = torch.tanh(torch.addmm(arrange(bias), x, weight))
    assert torch.allclose(layer(x, weight, arrange(bias)), expected, atol=2e-6)
    found = gradient(lambda bias: xp.sum(layer(x, weight, arrange(bias)) ** 2), bias)
    assert difference(found, torch.autograd.grad((expected**2).sum(), bias)[0]) < 2e-5


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (1, 2)])
def test_weights_that_share_entries(rows, columns):
    """As of a convolution; the kernel itself refuses them."""
    needs_kernel()
    x, entries, bias = drawn((8, 6), (17,), (4,))
    weight = torch.as_strided(entries, (6, 4), (rows, columns))
    expected = torch.tanh(torch.addmm(bias, x, weight))
    assert torch.allclose(layer(x, weight, bias), expected, atol=2e-6)
    found = torch.autograd.grad((layer(x, weight, bias) ** 2).sum(), entries)[0]
    assert difference(found, torch.autograd.grad((expected**2).sum(), entries)[0]) < 2e-5


@pytest.mark.parametrize("shape", [(0, 3, 4), (5, 0, 4), (5, 3, 0), (1, 1, 1)])
def test_nothing_and_one_of_everything(shape):
    rows, inputs, outputs = shape
    args = drawn((rows, inputs), (inputs, outputs), (outputs,))
    y = torch_native.NATIVE["activated"](*args, activation=xp.tanh)
    expected = torch.tanh(torch.addmm(args[2], args[0], args[1]))
    assert torch.allclose(y, expected, atol=1e-6)
    for found, e in zip(*(torch.autograd.grad((z**2).sum(), args) for z in (y, expected)), strict=True):
        assert torch.allclose(found, e, atol=1e-5)


def test_derivatives_to_the_third_order_in_all_of_it(monkeypatch):
    monkeypatch.setattr(torch_tanh, "_kernel", lambda x, weight, bias: torch.tanh(torch.addmm(bias, x, weight)))
    args = drawn((4, 3), (3, 2), (2,), dtype=torch.float64)

    def slope(*args):
        y = torch_tanh._Tanh.apply(*args)
        return torch.autograd.grad((y * torch.cos(y)).sum(), args, create_graph=True)

    assert torch.autograd.gradcheck(torch_tanh._Tanh.apply, args)
    assert torch.autograd.gradgradcheck(torch_tanh._Tanh.apply, args)
    assert torch.autograd.gradgradcheck(slope, args)


@pytest.mark.parametrize("asked", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("other", ["grad", "backward", "polyad"])
def test_only_what_is_asked_for_is_computed(asked, other):
    needs_kernel()
    args = drawn((6, 3), (3, 4), (4,))
    products = []

    class Counting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function in (torch.ops.aten.mm.default, torch.ops.aten.sum.dim_IntList):
                products.append(function)
            return function(*args, **(kwargs or {}))

    expected = torch.autograd.grad(torch.tanh(torch.addmm(args[2], args[0], args[1])).sum(), args)
    if other == "backward":  # in all leaves
        y = layer(*args)
        with Counting():
            y.sum().backward()
        assert len(products) == 3
        assert all(torch.allclose(arg.grad, e, atol=1e-5) for arg, e in zip(args, expected, strict=True))
        return
    if other == "grad":
        y = layer(*args)
        with Counting():
            found = torch.autograd.grad(y.sum(), [args[i] for i in asked])
    else:
        counting = Counting()

        def f(*some):
            given = list(args)
            for i, one in zip(asked, some, strict=True):
                given[i] = one
            return layer(*given).sum()

        _, pull = vjp(f, *[args[i] for i in asked])
        with counting:
            found = pull(torch.ones(()))
    assert len(products) == len(asked)
    for i, found_i in zip(asked, found, strict=True):
        assert torch.allclose(found_i, expected[i], atol=1e-5)


def test_a_pass_inside_of_the_backward_of_another_asks_for_itself():
    needs_kernel()
    x, weight, bias = drawn((6, 3), (3, 4), (4,))

    class Inner(torch.autograd.Function):
        """Whose backward pass differentiates a layer in what the pass around does not ask for."""

        @staticmethod
        def forward(ctx, x):
            return x.sum()

        @staticmethod
        def backward(ctx, by_y):
            with torch.enable_grad():
                slope = torch.autograd.grad(layer(x, weight, bias).sum(), weight)[0]
            return by_y * slope.sum().expand(6, 3)

    found = gradient(lambda x: Inner.apply(x), x.detach())
    expected = torch.autograd.grad(torch.tanh(torch.addmm(bias, x, weight)).sum(), weight)[0].sum()
    assert torch.allclose(found, expected.expand(6, 3), rtol=1e-5)


DERIVATIVES = {
    "value": lambda net, x: net(x),
    "gradient": lambda net, x: gradient(lambda x: xp.sum(net(x) ** 2), x),
    "batched_jacobian": batched_jacobian,
    "batched_jacobian in reverse": lambda net, x: batched_jacobian(net, x, mode="reverse"),
    "jacobian": jacobian,
    "jvp": lambda net, x: jvp(net, (x,), (xp.sin(x),))[1],
    "vjp": lambda net, x: vjp(net, x)[1](net(x))[0],
    "hvp": lambda net, x: hvp(lambda x: xp.sum(net(x) ** 2), (x,), (xp.sin(x),)),
    "hessian": lambda net, x: hessian(lambda x: xp.sum(net(x) ** 3), x[:2]),
    "laplacian": laplacian,
    "vmap": lambda net, x: vmap(lambda row: net(xp.reshape(row, (1, 3)))[0])(x),
    "gradient of a gradient": lambda net, x: gradient(
        lambda x: xp.sum(gradient(lambda x: xp.sum(net(x) ** 3), x) ** 2), x
    ),
}


BY_JETS = ("laplacian", "vmap")  # and transformations, which are not for the kernel


@pytest.mark.parametrize("name", DERIVATIVES)
@pytest.mark.parametrize("policy", ["auto", "taped", "recompute", "forward_over_reverse"])
def test_losses_are_those_of_float64(name, policy, kernels):
    needs_kernel()
    found, ran = {}, []
    for dtype in ("float32", "float64"):
        params, state = setup(3, MODEL, backend="torch", dtype=dtype)
        x = torch.linspace(-1.0, 1.0, 15, dtype=getattr(torch, dtype)).reshape(5, 3)

        def loss(params, x, state=state):
            return xp.sum(DERIVATIVES[name](StatefulLayer(MODEL, params, state), x) ** 2)

        with nested_switching(policy):
            grads = gradient(loss, params, x, argnums=(0, 1))
        found[dtype] = torch.cat([leaf.double().ravel() for leaf in trees.leaves(grads)])
        ran.append(len(kernels))
    assert ran[0] == ran[1]
    assert kernels or policy not in ("auto", "taped") or name in BY_JETS
    assert difference(found["float32"], found["float64"]) < 2e-5


def test_rows_are_seen_to_be_apart_without_a_second_evaluation(monkeypatch, kernels):
    needs_kernel()
    params, state = setup(3, MODEL, backend="torch", dtype="float32")
    (x,) = drawn((5, 3))
    net = StatefulLayer(MODEL, params, state)
    found = batched_jacobian(net, x.detach(), mode="reverse")
    assert len(kernels) == 2  # each layer once
    expected = jacobian(net, x.detach())
    for i in range(5):
        assert torch.allclose(found[i], expected[i, :, i], atol=1e-5)
    mixing = batched_jacobian(lambda x: net(x) * 1.0, x.detach(), mode="reverse")
    assert torch.allclose(mixing, found, atol=1e-6)


def test_weights_that_depend_on_the_rows_prove_nothing():
    needs_kernel()
    rows_apart = pytest.importorskip("polyad.backends.torch_rows").rows_apart
    x, weight, bias = drawn((4, 4), (4, 4), (4,))
    assert rows_apart(layer(x, weight, bias), x, 4)
    assert not rows_apart(layer(weight, x, bias), x, 4)
    assert not rows_apart(layer(x, weight, x.sum(0)), x, 4)
    assert not rows_apart(layer(x, weight * x.sum(), bias), x, 4)


def test_torch_alone_differentiates_it():
    needs_kernel()
    params, state = setup(3, MODEL, backend="torch", dtype="float32")
    leaves = [leaf.requires_grad_() for part in params.values() for leaf in part.values()]
    (x,) = drawn((5, 3))
    net = StatefulLayer(MODEL, params, state)

    def plain(x):
        for i in range(2):
            x = torch.tanh(x @ params[f"layer_{i}"]["weight"] + params[f"layer_{i}"]["bias"])
        return x @ params["layer_2"]["weight"] + params["layer_2"]["bias"]

    def penalty(u):
        (slope,) = torch.autograd.grad((u(x) ** 2).sum(), x, create_graph=True)
        return (slope**2).sum()

    assert type(net(x).grad_fn.next_functions[1][0]) is torch_tanh.Node
    for found, expected in zip(
        torch.autograd.grad(penalty(net), leaves, materialize_grads=True, allow_unused=True),
        torch.autograd.grad(penalty(plain), leaves, materialize_grads=True, allow_unused=True),
        strict=True,
    ):
        assert difference(found, expected) < 2e-5
    cotangents = torch.eye(10).reshape(10, 5, 2)
    (found,) = torch.autograd.grad(net(x), x, cotangents, is_grads_batched=True)
    (expected,) = torch.autograd.grad(plain(x), x, cotangents, is_grads_batched=True)
    assert difference(found, expected) < 2e-5
    kept = torch.utils.checkpoint.checkpoint(net, x, use_reentrant=False)
    found, expected = (torch.autograd.grad((y**2).sum(), leaves) for y in (kept, plain(x)))
    assert all(difference(f, e) < 2e-5 for f, e in zip(found, expected, strict=True))


def test_what_is_written_to_afterwards_is_refused():
    needs_kernel()
    x, weight, bias = drawn((4, 3), (3, 5), (5,))
    y = layer(x, weight, bias)
    with torch.no_grad():
        y.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_what_no_gradient_needs_may_be_written_to():
    """As with torch's own functions, and so may come from inference mode."""
    needs_kernel()
    x, weight, bias = drawn((4, 3), (3, 5), (5,))
    (expected,) = torch.autograd.grad(torch.tanh(torch.addmm(bias, x, weight)).sum(), weight)
    y = layer(x.detach(), weight, bias)
    with torch.no_grad():
        weight.mul_(2.0)
    assert torch.allclose(torch.autograd.grad(y.sum(), weight)[0], expected, rtol=1e-5)
    with torch.inference_mode():
        x, weight = torch.ones(4, 3), torch.ones(3, 5)
    found, expected = (
        torch.autograd.grad(y.sum(), bias)[0]
        for y in (layer(x, weight, bias), torch.tanh(torch.addmm(bias, x, weight)))
    )
    assert torch.allclose(found, expected, rtol=1e-5)


@contextlib.contextmanager
def no_kernels():
    torch._C._set_mkldnn_enabled(False)  # mkldnn.flags() warns where there is no GPU of Intel
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(True)


class Seeing(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


class Dispatched(torch.utils._python_dispatch.TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "around",
    [no_kernels, Seeing, Dispatched, torch.autograd.forward_ad.dual_level, lambda: torch.autocast("cpu")],
    ids=["oneDNN off", "a mode", "a dispatch mode", "dual numbers", "autocast"],
)
def test_where_something_wants_to_see_each_function_there_is_no_kernel(around, kernels):
    x, weight, bias = drawn((4, 3), (3, 5), (5,))
    with around():
        y = torch_native.NATIVE["activated"](x, weight, bias, activation=xp.tanh)
    assert not kernels
    assert torch.allclose(y.float(), torch.tanh(x @ weight + bias), atol=2e-2)


@pytest.mark.parametrize(
    "transformed",
    [
        lambda f, x: torch.func.vmap(f)(x[:, None]),
        lambda f, x: torch.func.vjp(f, x)[0],
        lambda f, x: torch.func.jvp(f, (x,), (x,))[0],
        lambda f, x: torch.fx.experimental.proxy_tensor.make_fx(f)(x)(x),
    ],
    ids=["vmap", "vjp", "jvp", "make_fx"],
)
def test_transformations_see_functions_of_torch(transformed, kernels):
    x, weight, bias = drawn((4, 3), (3, 5), (5,))
    transformed(lambda x: torch_native.NATIVE["activated"](x, weight, bias, activation=xp.tanh), x)
    assert not kernels


@pytest.mark.parametrize(
    "given",
    [
        lambda x, weight, bias: (x.double(), weight.double(), bias.double()),
        lambda x, weight, bias: (x, weight, bias[:1]),
        lambda x, weight, bias: (x, weight, bias.expand(4, 5)),
        lambda x, weight, bias: (x.detach().to_sparse(), weight, bias),
        lambda x, weight, bias: (x[:1], weight, bias),
        lambda x, weight, bias: (x, weight[:, :1], bias[:1]),
    ],
    ids=["float64", "one bias for all", "a bias of each row", "sparse", "one row", "one output"],
)
def test_other_arguments_go_to_torch(given, kernels):
    x, weight, bias = drawn((4, 3), (3, 5), (5,))
    args = given(x, weight, bias)
    y = torch_native.NATIVE["activated"](*args, activation=xp.tanh)
    assert not kernels
    assert torch.allclose(y.float(), torch.tanh(args[0].to_dense() @ args[1] + args[2]).float(), atol=1e-6)


def test_shapes_that_do_not_fit_raise_as_in_torch():
    x, weight, bias = drawn((4, 3), (2, 5), (5,))
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        torch_native.NATIVE["activated"](x, weight, bias, activation=xp.tanh)


def test_without_a_graph_there_is_no_step_of_it(kernels):
    needs_kernel()
    x, weight, bias = drawn((4, 3), (3, 5), (5,))
    with torch.no_grad():
        y = torch_native.NATIVE["activated"](x, weight, bias, activation=xp.tanh)
    assert kernels
    assert y.grad_fn is None
    with torch.inference_mode():
        y = torch_native.NATIVE["activated"](x, weight, bias, activation=xp.tanh)
    assert len(kernels) == 2
    assert np.allclose(y, torch.tanh(x @ weight + bias).detach(), atol=1e-6)


def test_where_the_kernel_is_wrong_it_is_left_alone(monkeypatch):
    torch_tanh._works.cache_clear()
    monkeypatch.setattr(torch_tanh, "_kernel", lambda x, weight, bias: x @ weight + bias)
    try:
        assert not torch_tanh._works()
        x, weight, bias = drawn((4, 3), (3, 5), (5,))
        assert torch_tanh.tanh_of_affine(x, weight, bias) is None
    finally:
        torch_tanh._works.cache_clear()
