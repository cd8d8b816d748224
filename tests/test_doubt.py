"""Derivatives by jets inside of torch's vmap: the vmap compares at a few points what cannot be looked at inside."""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import polyad
from polyad import derivative, explain, gradient, laplacian, vmap, xp
from polyad.backends import get
from polyad.operators.doubt import doubt
from polyad.operators.vmap import _Points

torch64 = {"dtype": torch.float64}


def points(count):
    return torch.linspace(-1.1, 1.3, count, **torch64)


def wave(t):
    return xp.sin(2 * t) * xp.exp(-t)


def second_of_wave(t):
    return _of_wave(t, 2)


def third_of_wave(t):
    return _of_wave(t, 3)


def _of_wave(t, order):
    """The wave is the imaginary part of exp((2i - 1) t)."""
    factor = complex(-1, 2) ** order
    return torch.exp(-t) * (factor.real * torch.sin(2 * t) + factor.imag * torch.cos(2 * t))


def frozen(t):
    """t^2, a constant, times t^3; jets go through as if it were t^5."""
    with torch.no_grad():
        square = t**2
    return square * t**3


def frozen_beyond(t):
    """The same, and t^5 below zero."""
    return torch.where(t > 0, frozen(t), t**5)


class Cubic(torch.autograd.Function):
    """t^3, whose derivative is said to be 4 t^2; no jet goes in."""

    generate_vmap_rule = True

    @staticmethod
    def forward(t):
        return t**3

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx, grad):
        return grad * 4 * ctx.saved_tensors[0] ** 2


@pytest.fixture
def sizes(monkeypatch):
    """How many points each evaluation of the mapped function sees, and whether torch records it."""
    found = []
    batched = _Points._batched

    def seen(self, rows):
        found.append((len(rows[0]), torch.is_grad_enabled()))
        return batched(self, rows)

    monkeypatch.setattr(_Points, "_batched", seen)
    return found


@pytest.mark.parametrize("chunk_size", [None, 30, 3])
@pytest.mark.parametrize("count", [0, 1, 9, 64, 80])
def test_a_third_derivative_at_many_points_is_one_series(count, chunk_size):
    t = points(count)

    def thirds(t):
        return vmap(lambda t: derivative(wave, t, order=3), chunk_size=chunk_size)(t)

    torch.testing.assert_close(thirds(t), third_of_wave(t), rtol=1e-12, atol=1e-12)
    if count:
        assert "derivative on torch: jets, 1 sweep: one Taylor series of order 3" in str(explain(thirds, t))


def test_many_points_are_compared_at_seven_of_them_and_few_at_all(sizes):
    for count in (63, 64, 700):
        vmap(lambda t: derivative(wave, t, order=2))(points(count))
    assert sizes == [(63, True), (64, True), (7, False), (700, True), (7, False)]
    sizes.clear()
    vmap(lambda t: derivative(wave, t, order=2), chunk_size=4)(points(64))
    assert [size for size, _ in sizes] == [4] * 17


def test_what_has_nothing_to_compare_is_evaluated_once(sizes):
    vmap(gradient(wave))(points(80))
    vmap(lambda t: derivative(wave, points(1)[0], order=2) + t)(points(80))  # compared at once: the value is seen
    assert sizes == [(80, True), (80, True)]


@pytest.mark.parametrize("count", [9, 80])
def test_the_gradient_in_parameters_is_that_of_nested_gradients(count):
    model = polyad.Chain(polyad.Dense(1, 8, "tanh"), polyad.Dense(8, 8, "softplus"), polyad.Dense(8, 1))
    params, state = polyad.setup(3, model, backend="torch", dtype="float64")
    x = points(count)[:, None]

    def by_series(params):
        net = polyad.StatefulLayer(model, params, state)
        thirds = vmap(lambda t: derivative(lambda t: net(xp.reshape(t, (1,)))[0], t, order=3))(x[:, 0])
        return xp.sum(thirds**2)

    def by_gradients(params):
        net = polyad.StatefulLayer(model, params, state)
        first = gradient(lambda x: xp.sum(net(x)))
        second = gradient(lambda x: xp.sum(first(x)))
        return xp.sum(gradient(lambda x: xp.sum(second(x)), x) ** 2)

    found, expected = gradient(by_series, params), gradient(by_gradients, params)
    for mine, theirs in zip(polyad.trees.leaves(found), polyad.trees.leaves(expected), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)
    assert max(float(leaf.abs().max()) for leaf in polyad.trees.leaves(expected)) > 1e-2


@pytest.mark.parametrize("count", [9, 80])
@pytest.mark.parametrize("f", [frozen, frozen_beyond])
def test_what_jets_do_not_see_is_found(count, f, sizes):
    t = points(count)

    def second(t):
        with torch.no_grad():  # while torch records, jets refuse what is not recorded in f
            return vmap(lambda t: derivative(f, t, order=2))(t)

    factor = 6.0 if f is frozen else torch.where(t > 0, 6.0, 20.0)
    torch.testing.assert_close(second(t), factor * t**3, rtol=1e-12, atol=1e-12)
    assert [size for size, _ in sizes] == ([9, 9] if count == 9 else [80, 7, 80])
    told = str(explain(second, t))
    assert told.count("derivative on torch") == 1
    assert "its first derivative is another one on torch at some point" in told


def test_a_rule_of_torch_that_jets_do_not_see_is_kept():
    t = points(80)
    torch.testing.assert_close(vmap(lambda t: derivative(Cubic.apply, t, order=2))(t), 8 * t, rtol=1e-12, atol=1e-12)


def test_one_derivative_of_several_that_differs_is_found():
    t = points(80)
    both = vmap(lambda t: derivative(wave, t, order=2) + derivative(frozen, t, order=2))(t)
    torch.testing.assert_close(both, second_of_wave(t) + 6 * t**3, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("f", [wave, frozen])
@pytest.mark.parametrize("inner", [9, 70])
def test_a_vmap_inside_of_a_vmap_leaves_it_to_the_outer_one(inner, f):
    s, t = points(65), points(inner)

    def along(s):
        return vmap(lambda t: derivative(lambda t: f(s * t), t, order=3))(t)

    third = third_of_wave if f is wave else lambda z: 6 * z**2
    expected = s[:, None] ** 3 * third(s[:, None] * t)
    torch.testing.assert_close(vmap(along)(s), expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("count", [9, 80])
def test_a_gradient_between_the_vmap_and_the_derivative_is_right(count):
    t = points(count)
    slopes = vmap(gradient(lambda t: derivative(wave, t, order=2)))(t)
    torch.testing.assert_close(slopes, third_of_wave(t), rtol=1e-11, atol=1e-11)
    slopes = vmap(gradient(lambda t: derivative(frozen, t, order=2)))(t)
    torch.testing.assert_close(slopes, 6 * t**2, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("f", [wave, frozen])
def test_inside_of_transformations_of_torch_itself(f):
    s, t = points(5), points(66)

    def total(s):
        return vmap(lambda t: derivative(lambda t: f(s * t), t, order=2))(t).sum()

    def exact(s):
        if f is wave:
            return (s**2 * second_of_wave(s * t)).sum()
        return (s.detach() ** 2 * 6 * s**3 * t**3).sum()  # what no_grad() makes is constant to the pass around too

    expected = torch.stack([torch.func.grad(exact)(x) for x in s])
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(total))(s), expected, rtol=1e-10, atol=1e-10)


def test_laplacians_of_many_batches_are_compared_too(sizes):
    x = torch.linspace(-1, 1, 80 * 4 * 3, **torch64).reshape(80, 4, 3)
    found = vmap(lambda x: laplacian(lambda x: xp.sum(xp.sin(x) ** 2, axis=1), x))(x)
    torch.testing.assert_close(found, 2 * torch.cos(2 * x).sum(2), rtol=1e-12, atol=1e-12)
    assert [size for size, _ in sizes] == [80, 7]
    found = vmap(lambda x: laplacian(lambda x: xp.sum(frozen(x), axis=1), x))(x)
    torch.testing.assert_close(found, 6 * (x**3).sum(2), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("count", [9, 80])
def test_a_difference_in_a_trace_is_nan(count, monkeypatch):
    t = points(count)

    def thirds(t):
        return vmap(lambda t: derivative(wave, t, order=3))(t)

    traced = make_fx(thirds)(t)
    torch.testing.assert_close(traced(t + 0.5), third_of_wave(t + 0.5), rtol=1e-12, atol=1e-12)
    monkeypatch.setattr("polyad.operators.by_jets.differs", lambda gap, expected: gap == gap)
    assert math.isnan(float(make_fx(thirds)(t)(t).sum()))


def test_an_error_of_the_function_leaves_no_doubt_behind():
    def broken(t):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        vmap(lambda t: derivative(broken, t, order=2))(points(80))
    t = points(80)
    seen = []
    torch.func.vmap(lambda t: seen.append(doubt(get("torch"), t)) or t)(t)
    assert seen == [None]
