"""What is particular to PyTorch: its modes, its tape, and its own defects."""

import numpy as np
import pytest

import polyad
from polyad import batched_jacobian, gradient, jacobian, vjp, xp
from polyad.backends import get
from polyad.errors import ImpureFunctionError, UnsupportedError
from tests.examples import difference

torch = pytest.importorskip("torch")
from tests.torch_functions import Cube  # noqa: E402

POINT = torch.tensor([0.3, 0.7, -0.4], dtype=torch.float64)
EXPECTED = 3 * POINT.numpy() ** 2


def cubes(x):
    return xp.sum(x**3)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_derivatives_are_taken_where_torch_records_nothing(context, requires_grad):
    x = POINT.clone().requires_grad_(requires_grad)
    with context():
        inside = x * 1.0
        for point in (x, inside):
            results = [
                gradient(cubes, point),
                xp.sum(jacobian(lambda x: x**3, point), axis=0),
                vjp(cubes, point)[1](torch.ones((), dtype=torch.float64))[0],
                gradient(lambda x: xp.sum(gradient(cubes, x) ** 2), point),
            ]
            assert not any(r.requires_grad for r in results)
            for result in results[:3]:
                assert difference(result, EXPECTED) < 1e-14
            assert difference(results[3], 36 * POINT.numpy() ** 3) < 1e-14


def beside(x):
    return Cube.apply(x) + x**2  # torch cuts the graph of the first part, and finds x in the second


def test_a_function_that_is_differentiable_once_is_refused_at_second_order():
    first = 3 * POINT**2 + 2 * POINT
    assert difference(gradient(lambda x: xp.sum(Cube.apply(x)), POINT), EXPECTED) < 1e-15
    assert difference(gradient(lambda x: xp.sum(beside(x)), POINT.clone().requires_grad_()).detach(), first) < 1e-15
    field = lambda x: xp.sum(beside(x), axis=-1)  # noqa: E731
    for derived in (
        lambda x: gradient(lambda x: xp.sum(gradient(lambda x: xp.sum(Cube.apply(x) ** 2), x)), x),
        lambda x: gradient(lambda x: xp.sum(gradient(lambda x: xp.sum(Cube.apply(x)), x) * x), x),
        lambda x: gradient(lambda x: xp.sum(gradient(field, x)), x),
        lambda x: gradient(lambda x: xp.sum(jacobian(beside, x)), x),
        lambda x: gradient(lambda x: xp.sum(batched_jacobian(beside, x[None])), x),
        lambda x: gradient(field, x.clone().requires_grad_()).sum().backward(),
        lambda x: polyad.jvp(beside, (x,), (x,)),
        lambda x: polyad.hvp(field, (x,), (x,)),
        lambda x: polyad.hessian(field, x),
        lambda x: polyad.laplacian(field, x[None]),
    ):
        with pytest.raises(UnsupportedError, match="once_differentiable"):
            derived(POINT)


def test_what_stands_beside_a_function_that_is_differentiable_once_has_its_derivatives():
    def loss(w):
        return xp.sum(gradient(lambda x: xp.sum(Cube.apply(x) + x**2 * w), POINT) ** 2)

    w = torch.tensor([1.5, -0.5, 0.8], dtype=torch.float64)
    expected = 4 * POINT * (3 * POINT**2 + 2 * POINT * w)
    assert difference(gradient(loss, w), expected) < 1e-14


def test_a_function_that_is_differentiable_once_is_refused_inside_of_torch_func():
    class Squared(torch.autograd.Function):
        generate_vmap_rule = True

        @staticmethod
        def forward(x):
            return x**2

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(*inputs)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, g):
            return 2 * g * ctx.saved_tensors[0]

    def slope(x):
        return gradient(lambda x: torch.sum(Squared.apply(x) + x**3), x)

    expected = 2 * POINT + 3 * POINT**2
    assert difference(polyad.vmap(slope)(POINT[None])[0], expected) < 1e-14
    for derived in (
        lambda x: torch.func.grad(lambda x: torch.sum(slope(x)))(x),
        lambda x: polyad.vmap(lambda x: gradient(lambda x: torch.sum(slope(x)), x))(x[None]),
    ):
        with pytest.raises(UnsupportedError, match="once_differentiable"):
            derived(POINT)


def test_wide_outputs_behind_a_fused_norm_are_differentiated_by_rows():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.LayerNorm(16), torch.nn.Tanh()).double()
    x = torch.tensor([0.4, -1.2], dtype=torch.float64)
    by_rows = gradient(lambda x: xp.sum(jacobian(net, x, mode="reverse") ** 2), x)
    assert difference(gradient(lambda x: xp.sum(jacobian(net, x) ** 2), x), by_rows.detach()) < 1e-12


def test_rows_of_cdist_are_not_batched():
    x = torch.tensor(np.random.Generator(np.random.Philox(1)).normal(size=(4, 6)))

    def f(x):
        return torch.cdist(x, torch.roll(x, 1, 0))

    assert difference(jacobian(f, x, mode="reverse"), jacobian(f, x, mode="finite_difference")) < 1e-6


def test_vmap_goes_over_every_operator_and_mode():
    rows = torch.stack([POINT, 2 * POINT])
    for mode in ("auto", "forward", "reverse"):
        for f, expected in (
            (lambda x, m=mode: gradient(cubes, x, mode=m), np.stack([EXPECTED, 4 * EXPECTED])),
            (lambda x, m=mode: xp.sum(jacobian(lambda x: xp.concat([x**3] * 3), x, mode=m), axis=0) / 3, None),
        ):
            expected = np.stack([EXPECTED, 4 * EXPECTED])
            assert difference(torch.func.vmap(f)(rows), expected) < 1e-13
    batch = torch.func.vmap(lambda x: batched_jacobian(lambda x: x**2, x[:, None]))(rows)
    assert difference(batch[:, :, 0, 0], 2 * rows) < 1e-14


def test_checkpoint_may_be_around_a_small_jacobian():
    from torch.utils.checkpoint import checkpoint

    x = POINT.clone().requires_grad_()
    y = checkpoint(lambda x: xp.sum(jacobian(lambda x: x**3, x) ** 2), x, use_reentrant=False)
    (grad,) = torch.autograd.grad(y, x)
    assert difference(grad, 36 * POINT.numpy() ** 3) < 1e-14


def test_auto_takes_the_pass_that_a_custom_function_has():
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            return g * 3 * ctx.saved_tensors[0] ** 2

    jac = jacobian(lambda x: xp.concat([Cube.apply(x)] * 4), POINT)  # wide: forward would be chosen
    assert difference(jac[:3], np.diag(EXPECTED)) < 1e-14


def test_modules_with_their_own_parameters_keep_them():
    torch.manual_seed(1)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
    loss = xp.sum(gradient(lambda x: xp.sum(net(x)), POINT) ** 2)
    by_polyad = torch.autograd.grad(loss, net[0].weight)[0]
    x = POINT.clone().requires_grad_()
    (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    assert difference(by_polyad, torch.autograd.grad((slope**2).sum(), net[0].weight)[0]) < 1e-14


@pytest.mark.parametrize("name", ["det", "slogdet", "solve"])
@pytest.mark.parametrize("inner", ["forward", "reverse"])
@pytest.mark.parametrize("outer", ["forward", "reverse"])
def test_second_derivatives_of_matrix_functions_are_right_in_every_mix_of_modes(name, inner, outer):
    x = torch.tensor([[2.0, 1.0], [0.5, 3.0]], dtype=torch.float64)
    b = torch.tensor([1.0, -2.0], dtype=torch.float64)
    f = {
        "det": lambda x: xp.linalg.det(x) ** 2,
        "slogdet": lambda x: xp.linalg.slogdet(x)[1],
        "solve": lambda x: xp.sum(xp.linalg.solve(x, b) ** 3),
    }[name]
    hessian = jacobian(lambda x: gradient(f, x, mode=inner), x, mode=outer)
    expected = jacobian(lambda x: gradient(f, x, mode="reverse"), x, mode="finite_difference")
    assert difference(hessian, expected) < 1e-8
    assert difference(f(x), torch.func.vmap(f)(x[None])[0]) < 1e-14


def test_tangents_have_the_dtype_of_their_value():
    x = torch.tensor([0.5, 0.25])
    f = lambda x: xp.sin(xp.sum(x) + 1.0)  # noqa: E731
    _, dy = polyad.jvp(f, (x,), (x,))  # torch's own tangent is float64
    assert dy.dtype == torch.float32
    assert polyad.jacobian(f, x, mode="forward").dtype == torch.float32


def test_no_direction_gives_an_empty_derivative():
    x = torch.tensor([0.5, 0.25])
    (y,), (dy,) = get("torch").pushforwards(lambda x: (x**3,), (x,), (torch.zeros((0, 2)),))
    assert tuple(dy.shape) == (0, 2)
    assert difference(y, x.numpy() ** 3) < 1e-7


def test_a_write_into_an_argument_is_refused_and_not_differentiated():
    x = torch.linspace(0.5, 2.0, 4, dtype=torch.float64, requires_grad=True) * 1.0  # no leaf, where torch lets it be
    with pytest.raises(ImpureFunctionError, match="in place"):
        gradient(lambda z: torch.sum(z.mul_(2) ** 3), x)
    c = torch.linspace(0.5, 2.0, 4, dtype=torch.float64)
    y = torch.linspace(0.5, 2.0, 4, dtype=torch.float64, requires_grad=True) * 1.0
    grad = gradient(lambda z: torch.sum((z.clone().mul_(2)) ** 3), y)  # one's own copy may be written to
    torch.testing.assert_close(grad, 24 * c**2, rtol=1e-12, atol=0)


def test_a_constant_by_no_grad_is_one_in_every_mode():
    def field(x):
        with torch.no_grad():
            c = x * 1.0
        return torch.cat([torch.tanh(x) * c] * 8, 1)

    x = torch.linspace(-1.0, 1.2, 140, dtype=torch.float64).reshape(70, 2)
    slope = x * (1 - torch.tanh(x) ** 2)
    expected = torch.cat([torch.diag_embed(slope)] * 8, 1)
    for mode in ("auto", "reverse", "forward"):
        torch.testing.assert_close(batched_jacobian(field, x, mode=mode), expected, rtol=1e-12, atol=0)

    def curve(t):
        with torch.no_grad():
            c = t * 1.0
        return torch.tanh(t) * c

    t = torch.tensor(0.7, dtype=torch.float64)
    found = (gradient(curve, t), polyad.derivative(curve, t), polyad.jvp(curve, (t,), (torch.ones_like(t),))[1])
    for value in found:
        torch.testing.assert_close(value, t * (1 - torch.tanh(t) ** 2), rtol=1e-14, atol=0)


def field_of_constants(x):
    with torch.no_grad():
        c = torch.sin(x) * 2
        d, same = torch.max(torch.outer(x, x), dim=0)[0], x.to(x.dtype)
        with torch.enable_grad():
            e = torch.cos(x)
    return torch.cat([torch.tanh(x) * c, d * x, same**2, torch.nn.functional.layer_norm(x, (3,)) * e] * 4)


@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad])
def test_forward_mode_stops_where_reverse_mode_does(outside):
    x = torch.tensor([0.5, -1.2, 0.9], dtype=torch.float64)
    with outside():
        found = {mode: jacobian(field_of_constants, x, mode=mode) for mode in ("auto", "forward", "reverse")}
    for J in found.values():
        torch.testing.assert_close(J, found["reverse"], rtol=1e-12, atol=1e-14)
        assert not J.requires_grad
    slope = 2 * torch.sin(x) * (1 - torch.tanh(x) ** 2)
    torch.testing.assert_close(found["forward"][:3], torch.diag(slope), rtol=1e-12, atol=1e-14)
    second = polyad.hessian(lambda x: torch.sum(field_of_constants(x)), x, mode="forward")
    torch.testing.assert_close(second, polyad.hessian(lambda x: torch.sum(field_of_constants(x)), x, mode="reverse"))


def test_forward_mode_goes_through_inference_mode():
    def f(x):
        with torch.inference_mode():
            c = x * 2
            c = c + 1
        return torch.cat([x**2 * c.clone()] * 4)

    expected = torch.cat([torch.diag(2 * POINT * (2 * POINT + 1))] * 4)
    for outside in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with outside():
            x = POINT * 1.0
            for mode in ("auto", "forward", "reverse"):
                assert difference(jacobian(f, x, mode=mode), expected) < 1e-14
                assert difference(polyad.jvp(f, (x,), (x,), mode=mode)[1], expected @ POINT) < 1e-14
            assert difference(jacobian(field_of_constants, x, mode="forward"), jacobian(field_of_constants, x)) < 1e-14


def test_data_is_a_constant_at_second_order_too():
    def f(x):
        return torch.sum(x.data * x**2)

    expected = np.diag(2 * POINT.numpy())
    for mode in ("auto", "forward", "reverse"):
        assert difference(polyad.hessian(f, POINT, mode=mode), expected) < 1e-14
        found = polyad.vmap(lambda x, m=mode: polyad.hessian(f, x, mode=m))(POINT[None])
        assert difference(found[0], expected) < 1e-14


@pytest.mark.parametrize("write", ["y.mul_(2.0)", "y[0] = 3.0", "y += x", "torch.relu_(y)", "buffer.copy_(x)"])
def test_a_write_under_no_grad_is_refused_by_forward_mode(write):
    def f(x):
        names = {"torch": torch, "x": x, "y": torch.sin(x), "buffer": torch.zeros_like(x)}
        with torch.no_grad():
            exec(write, names)  # what it writes keeps the derivative that it had, in reverse mode
        return torch.cat([names["y"] * x, names["buffer"] * x] * 4)

    x = torch.tensor([0.5, 1.2, 0.9], dtype=torch.float64)
    with pytest.raises(UnsupportedError, match=r"writes into a tensor under no_grad\(\)"):
        jacobian(f, x, mode="forward")
    torch.testing.assert_close(jacobian(f, x), jacobian(f, x, mode="reverse"), rtol=1e-12, atol=0)


def test_a_step_of_a_loop_does_not_walk_through_the_steps_before_it(monkeypatch):
    from polyad.backends import torch as adapter

    walked = []

    def counted(*args):
        walked.append(len(found := recorded(*args)))
        return found

    recorded = adapter.recorded
    monkeypatch.setattr(adapter, "recorded", counted)
    w = torch.tensor([0.7, -0.4], dtype=torch.float64, requires_grad=True)
    x = w * 1.0
    for _ in range(6):
        x = x - 0.1 * gradient(lambda z: torch.sum(torch.tanh(w * z) ** 2), x)
    assert len(set(walked[1:])) == 1
