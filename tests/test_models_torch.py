"""torch.nn.Module adopted: against functional_call and torch.func.jacrev written by hand."""

import copy
import math
import pickle
import threading

import numpy as np
import pytest

import polyad
from polyad import StatefulLayer, adopt, gradient, jacobian, release, value_and_gradient, xp
from polyad.layers import layer
from tests.examples import GENERATOR, arrays, difference

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from polyad.models.torch_functions import Inside  # noqa: E402

X = GENERATOR.normal(size=(8, 2, 4))
POINTS = GENERATOR.normal(size=(9, 2))
STRATEGIES = ("taped", "recompute", "forward_over_reverse")


class Net(nn.Module):
    """(B, 2, 4) to (B, 2): Conv, BatchNorm and Dropout."""

    def __init__(self, dropout=None):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm1d(3)
        self.drop = dropout or nn.Dropout(0.3)
        self.out = nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.drop(torch.tanh(self.norm(self.conv(x)))).mean(-1))


class Mask(nn.Module):
    """The mask that an adopted Dropout(0.3) has with these random numbers."""

    def __init__(self, random):
        super().__init__()
        self.random = random

    def forward(self, x):
        return x * (Inside(self.random).uniform((8, 3, 4), torch.zeros((), dtype=torch.float64)) >= 0.3) / 0.7


def made(module):
    """The module in float64, with numbers that do not change."""
    generator = torch.Generator().manual_seed(0)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.7 + (p.ndim == 1))
    return module


@pytest.fixture
def module():
    return made(Net())


@pytest.fixture
def x():
    return arrays("torch", X)


def jacobian_loss(net, params, x, state):
    both = StatefulLayer(net.model, params, state)
    value = xp.sum(both(x) ** 2)  # a plain call before: the state has moved when the Jacobian is made
    J = jacobian(both, x)
    return value + xp.sum(J**2) + xp.sum(both(x) ** 3)


def by_hand(module, random, params, x, training):
    """The same in torch alone: jacrev of functional_call, with the masks written out."""
    masks = [Mask({**random, "count": random["count"] + n}) if training else nn.Identity() for n in (0, 1)]
    first, second = (Net(mask).double().train(training) for mask in masks)

    def loss(params, x):
        def output(twin, x):
            buffers = {name: b.clone() for name, b in module.named_buffers()}
            return torch.func.functional_call(twin, {**params, **buffers}, (x,))

        J = torch.func.jacrev(lambda x: output(second, x))(x)
        return (output(first, x) ** 2).sum() + (J**2).sum() + (output(second, x) ** 3).sum()

    return torch.func.grad_and_value(loss, argnums=(0, 1))(params, x)


@pytest.mark.parametrize("policy", STRATEGIES)
@pytest.mark.parametrize("training", [True, False])
def test_a_jacobian_inside_a_loss_is_the_one_written_by_hand(module, x, policy, training):
    net = adopt(module.train(training))
    (grads, of_x), value = by_hand(module, net.state["random"], net.params, x, training)
    with polyad.nested_switching(policy):
        found, (of_params, found_x) = value_and_gradient(
            lambda p, x: jacobian_loss(net, p, x, net.state), net.params, x, argnums=(0, 1)
        )
    assert difference(found, value) < 1e-12
    assert difference(found_x, of_x) < 1e-10
    if training:  # a bias in front of a BatchNorm does nothing
        assert float(of_params.pop("conv.bias").abs().max()) < 1e-12
        grads.pop("conv.bias")
    assert difference(of_params, {name: grads[name] for name in of_params}) < 1e-10


def test_the_state_moves_once_a_plain_call_and_the_module_never(module, x):
    before = copy.deepcopy(module.state_dict())
    net, other = adopt(module), made(Net()).train()
    other(x)
    jacobian(net, x)
    polyad.hessian(lambda x: xp.sum(net(x)), x)
    assert int(net.state["random"]["count"]) == 0
    assert int(net.state["buffers"]["norm.num_batches_tracked"]) == 0
    net(x)
    assert int(net.state["random"]["count"]) == 1
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        assert difference(net.state["buffers"][f"norm.{name}"], getattr(other.norm, name)) < 1e-14
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(), strict=True))
    assert all(p.grad is None for p in module.parameters())
    assert module.training
    assert not any(b.requires_grad for b in net.state["buffers"].values())


def test_each_call_has_a_mask_of_its_own_and_all_passes_of_a_call_the_same(module, x):
    net, again = adopt(module, seed=3), adopt(module, seed=3)
    first, second = net(x), net(x)
    assert difference(first, second) > 1e-3
    assert difference(again(x), first) == 0.0
    assert difference(adopt(module, seed=4)(x), first) > 1e-3
    state = torch.get_rng_state()
    net(x)
    assert torch.equal(state, torch.get_rng_state())
    polyad.check_gradients(lambda x: xp.sum(jacobian(again, x) ** 2), x)


def test_under_the_transformations_of_torch_a_call_is_the_same(module, x):
    net = adopt(module)
    f = lambda x: net.model(x, net.params, net.state)  # noqa: E731
    J = torch.func.jacrev(lambda x: f(x)[0])(x)
    assert difference(torch.func.jacfwd(lambda x: f(x)[0], randomness="same")(x), J) < 1e-12
    assert difference(jacobian(net, x), J) < 1e-12
    stack = torch.stack([x, 2 * x])
    y, state = torch.vmap(f)(stack)
    each = [f(x), f(2 * x)]
    assert difference(y, torch.stack([e[0] for e in each])) < 1e-12
    means = torch.stack([e[1]["buffers"]["norm.running_mean"] for e in each])
    assert difference(state["buffers"]["norm.running_mean"], means) < 1e-12


def test_laplacian_and_batched_jacobian_in_test_mode(module, x):
    net = adopt(module)
    for _ in range(2):
        net(x)
    net = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    before = net.state
    twin = release(net)
    assert not twin.training
    assert difference(net(x), twin(x)) < 1e-14
    J = torch.func.jacrev(twin)(x)
    assert difference(polyad.batched_jacobian(net, x), torch.stack([J[b, :, b] for b in range(8)])) < 1e-12
    hessian = torch.func.vmap(torch.func.hessian(lambda row: twin(row[None])[0]))(x)
    assert difference(polyad.laplacian(net, x), torch.einsum("boijij->bo", hessian)) < 1e-11
    assert net.state is before


def formula(h, axes, shape=None):
    h = h if shape is None else h.reshape(shape)
    centred = h - h.mean(axes, keepdim=True)
    y = centred / torch.sqrt((centred**2).mean(axes, keepdim=True) + 1e-5)
    return y if shape is None else y.reshape(shape[0], -1)


NORMS = {
    "layer": (lambda: nn.LayerNorm(4, elementwise_affine=False), lambda h: formula(h, (1,))),
    "batch": (lambda: nn.BatchNorm1d(4, affine=False), lambda h: formula(h, (0,))),
    "group": (lambda: nn.GroupNorm(2, 4, affine=False), lambda h: formula(h, (2,), (9, 2, 2))),
    "instance": (lambda: nn.Unflatten(1, (2, 2)), lambda h: formula(h, (2,), (9, 2, 2))),
    "rms": (
        lambda: nn.RMSNorm(4, elementwise_affine=False),
        lambda h: h / torch.sqrt((h**2).mean(1, keepdim=True) + 2.0**-52),
    ),
}


@pytest.mark.parametrize("kind", NORMS)
@pytest.mark.parametrize("policy", ["taped", "recompute"])
def test_norms_are_right_at_third_order(kind, policy):
    norm, primitive = NORMS[kind]
    parts = [norm(), nn.InstanceNorm1d(2), nn.Flatten()] if kind == "instance" else [norm()]
    net = adopt(made(nn.Sequential(nn.Linear(2, 4), *parts, nn.Tanh(), nn.Linear(4, 1))))
    x = arrays("torch", POINTS)

    def own(x, p):
        last = p[f"{len(parts) + 2}.weight"], p[f"{len(parts) + 2}.bias"]
        return torch.tanh(primitive(x @ p["0.weight"].T + p["0.bias"])) @ last[0].T + last[1]

    def third(f):
        def slope(x, p):
            return gradient(lambda x: xp.sum(gradient(lambda x: xp.sum(f(x, p) ** 2), x) ** 2), x)

        return gradient(lambda p: xp.sum(slope(x, p) ** 2), net.params)["0.weight"]

    with polyad.nested_switching(policy):
        assert difference(third(net), third(own)) < 1e-9
        second = {mode: polyad.hessian(lambda x: xp.sum(net(x) ** 2), x, mode=mode) for mode in ("forward", "reverse")}
    assert difference(second["forward"], second["reverse"]) < 1e-11


def test_a_fused_norm_that_is_not_adopted_is_right_or_names_itself():
    weight, x = arrays("torch", GENERATOR.normal(size=(2, 4)), POINTS)
    fused = lambda x, w: torch.tanh(nn.functional.layer_norm(x @ w, (4,)))  # noqa: E731
    plain = lambda x, w: torch.tanh(formula(x @ w, (1,)))  # noqa: E731

    def third(f, mode):
        def inner(w):
            return xp.sum(polyad.hessian(lambda x: xp.sum(f(x, w) ** 2), x, mode=mode) ** 2)

        return gradient(inner, weight)

    for operator in (lambda f: polyad.hessian(lambda x: xp.sum(f(x, weight) ** 2), x, mode="forward"),):
        assert difference(operator(fused), operator(plain)) < 1e-11
    lap = lambda f: gradient(lambda w: xp.sum(polyad.laplacian(lambda x: f(x, w), x) ** 2), weight)  # noqa: E731
    assert difference(lap(fused), lap(plain)) < 1e-11
    assert difference(third(fused, "forward"), third(plain, "forward")) < 1e-10
    with (
        polyad.nested_switching("taped"),
        pytest.raises(polyad.errors.UnsupportedError, match=r"NativeLayerNorm.*adopt"),
    ):
        third(fused, "reverse")


def test_running_statistics_of_a_module_that_is_not_adopted_move_in_forward_mode_as_ever():
    norm, twin, x = nn.BatchNorm1d(2).double(), nn.BatchNorm1d(2).double(), arrays("torch", POINTS)
    twin(x)
    polyad.jvp(norm, (x,), (x,))
    assert difference(norm.running_var, twin.running_var) < 1e-14


def test_attention_and_recurrent_modules_have_second_derivatives():
    x = arrays("torch", X)
    for module in (nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.GRU(4, 3, batch_first=True)):
        net = adopt(made(module))

        def loss(p, x, net=net):
            def output(x):
                y = net(x, p)
                return y[0] if isinstance(y, tuple) else y

            return xp.sum(gradient(lambda x: xp.sum(output(x) ** 2), x) ** 2)

        name = next(iter(net.params))
        polyad.check_gradients(lambda w, x, net=net, name=name: loss({**net.params, name: w}, x), net.params[name], x)


def test_attention_is_that_of_torch():
    q, k, v = (arrays("torch", GENERATOR.normal(size=(2, 4, 5, 3))) for _ in range(3))
    cases = [{}, {"is_causal": True}, {"scale": 0.3}, {"attn_mask": torch.ones(5, 5).tril().bool()}]
    for options in cases:
        with Inside({}):
            found = nn.functional.scaled_dot_product_attention(q, k, v, **options)
        assert difference(found, nn.functional.scaled_dot_product_attention(q, k, v, **options)) < 1e-12
    with Inside({}):
        found = nn.functional.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)
    assert difference(found, nn.functional.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)) < 1e-12


@pytest.mark.parametrize(
    ("kind", "shape", "mask"),
    [
        (nn.Dropout, (400, 30), (400, 30)),
        (nn.Dropout1d, (400, 30, 5), (400, 30, 1)),
        (nn.Dropout2d, (400, 30, 2, 3), (400, 30, 1, 1)),
        (nn.Dropout3d, (400, 30, 2, 2, 2), (400, 30, 1, 1, 1)),
    ],
)
def test_dropout_keeps_what_it_says_and_the_mean(kind, shape, mask):
    net = adopt(nn.Sequential(nn.Linear(1, 1), kind(0.3)).double())
    drop = adopt(kind(0.3))
    y = drop(torch.ones(shape, dtype=torch.float64))
    kept = (y > 0).double()
    assert set(np.round(np.unique(y), 12)) == {0.0, round(1 / 0.7, 12)}
    assert torch.equal(kept, kept[tuple(slice(0, n) for n in mask)].expand(shape))
    assert abs(float(kept.mean()) - 0.7) < 4 * math.sqrt(0.21 / math.prod(mask))
    assert net.state["mode"] == drop.state["mode"]


def test_other_random_functions_depend_on_the_state_alone():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x):
            noise = torch.randn_like(x) + torch.rand(3) + torch.empty(3).uniform_()
            x = nn.functional.alpha_dropout(x, 0.2, True) + nn.functional.rrelu(x, training=True)
            return x * noise * self.scale + nn.functional.gumbel_softmax(x)

    net, x = adopt(made(Noisy())), arrays("torch", GENERATOR.normal(size=(5, 3)))
    torch.manual_seed(0)
    first = net.value_and_state(x)[0]
    torch.manual_seed(1)
    assert difference(net.value_and_state(x)[0], first) == 0.0
    polyad.check_gradients(lambda x: xp.sum(gradient(lambda x: xp.sum(net(x) ** 2), x) ** 2), x)


def test_tied_and_frozen_parameters_and_buffers_that_a_module_writes():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3)
            self.two.weight = self.one.weight
            self.three.requires_grad_(False)
            self.register_buffer("seen", torch.zeros(3))
            self.calls = 0

        def forward(self, x):
            self.seen += x.mean(0)
            self.seen = self.seen * 2
            self.calls += 1
            return torch.tanh(self.three(self.two(torch.tanh(self.one(x))))) * self.calls

    module, x = made(Tied()), arrays("torch", GENERATOR.normal(size=(5, 3)))
    net = adopt(module)
    assert set(net.params) == {"one.weight", "one.bias", "two.bias"}
    assert set(net.state["buffers"]) == {"three.weight", "three.bias", "seen"}
    for _ in range(2):
        y = net(x)
    assert difference(net.state["buffers"]["seen"], 6 * x.mean(0)) < 1e-14
    assert (module.calls, float(module.seen.abs().max())) == (0, 0.0)
    assert difference(y, module(x)) < 1e-14  # calls counts from 0 in each call
    loss = lambda p: xp.sum(StatefulLayer(net.model, p, net.state)(x) ** 2)  # noqa: E731
    expected = torch.autograd.grad(
        (module.three(module.two(torch.tanh(module.one(x)))).tanh() ** 2).sum(), module.one.weight
    )
    assert difference(gradient(loss, net.params)["one.weight"], expected[0]) < 1e-12


def test_modes_are_those_of_the_module_and_frozen_parts_stay_frozen(module, x):
    module.norm.eval()
    frozen = adopt(module)
    net = adopt(module.eval())
    for given, moves in ((frozen, False), (net, True)):
        tested = StatefulLayer(given.model, given.params, polyad.test_mode(given.state))
        assert difference(tested(x), module(x)) < 1e-14
        training = StatefulLayer(given.model, given.params, polyad.train_mode(tested.state))
        assert difference(training(x), module(x)) > 1e-3
        assert (float(training.state["buffers"]["norm.running_mean"].abs().max()) > 0) is moves
    assert isinstance(frozen.state["mode"], layer.Train)
    assert isinstance(net.state["mode"], layer.Test)


def test_several_inputs_are_a_tuple_or_a_dict():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.out = nn.Linear(3, 1)

        def forward(self, a, b, power=1):
            return self.out(a) * b**power

    net = adopt(made(Two()))
    a, b = arrays("torch", GENERATOR.normal(size=(5, 3)), GENERATOR.normal(size=(5, 1)))
    y = (a @ net.params["out.weight"].T + net.params["out.bias"]) * b**2
    assert difference(net((a, b, 2)), y) < 1e-14
    assert difference(net({"b": b, "a": a, "power": 2}), y) < 1e-14
    of_a, of_b = jacobian(lambda a, b: xp.sum(net((a, b, 2))), a, b, argnums=(0, 1))
    assert difference(of_b, 2 * y / b) < 1e-13
    assert difference(of_a, b**2 * net.params["out.weight"]) < 1e-13
    with pytest.raises(polyad.errors.DTypeError, match="float32"):
        net((a.float(), b))


def test_a_torch_model_trains_with_backward_and_optim(module, x):
    net = adopt(module)
    params = {name: p.requires_grad_() for name, p in net.params.items()}
    optimizer = torch.optim.Adam(params.values(), lr=0.01)
    values = []
    state = net.state
    for _ in range(30):
        optimizer.zero_grad()
        model = StatefulLayer(net.model, params, state)
        loss = xp.mean((model(x) - 1) ** 2) + 0.01 * xp.sum(jacobian(model, x) ** 2)
        loss.backward()
        optimizer.step()
        state = model.state
        values.append(float(loss.detach()))
    assert np.mean(values[-5:]) < 0.5 * np.mean(values[:5])
    assert int(state["random"]["count"]) == 30
    trained = release(StatefulLayer(net.model, params, polyad.test_mode(state)))
    assert difference(trained.out.weight, params["out.weight"]) == 0.0
    assert int(trained.norm.num_batches_tracked) == 30


def test_two_threads_may_call_one_net(module, x):
    net = adopt(module)
    expected = [net.model(x, {k: p * s for k, p in net.params.items()}, net.state)[0] for s in (1, 2)]
    wrong = []

    def work(s):
        params = {k: p * s for k, p in net.params.items()}
        for _ in range(30):
            if difference(net.model(x, params, net.state)[0], expected[s - 1]) > 0:
                wrong.append(s)

    threads = [threading.Thread(target=work, args=(s,)) for s in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_net_can_be_pickled_and_copied(module, x):
    net = adopt(module)
    net.model(x, net.params, net.state)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert difference(other(x), net.value_and_state(x)[0]) == 0.0


def test_an_adopted_model_is_a_layer_of_a_chain(x):
    chain = polyad.Chain(adopt(made(nn.Sequential(nn.Flatten(), nn.Linear(8, 3)))).model, "tanh", polyad.Dense(3, 1))
    params, state = polyad.setup(0, chain, backend="torch", dtype="float64")
    assert StatefulLayer(chain, params, state)(x).shape == (8, 1)


def test_what_cannot_be_is_said(module, x):
    net = adopt(module)
    with pytest.raises(polyad.errors.ParameterError, match=r"polyad\.adopt"):
        StatefulLayer(net.model, {"conv.weight": x}, net.state)
    with pytest.raises(polyad.errors.ParameterError, match=r"params\['out.bias'\].*shape"):
        StatefulLayer(net.model, {**net.params, "out.bias": x}, net.state)
    with pytest.raises(polyad.errors.ArgumentError, match="lazy"):
        adopt(nn.LazyLinear(3))
    with pytest.raises(polyad.errors.ArgumentError, match="has no variables"):
        adopt(module, {"params": 1})
    with pytest.raises(polyad.errors.ArgumentError, match="no model of"):
        adopt(lambda x: x)
    with pytest.raises(polyad.errors.ArgumentError, match="not made by"):
        release(StatefulLayer(polyad.Dense(2, 2), *polyad.setup(0, polyad.Dense(2, 2), backend="torch")))
    broken = nn.Linear(2, 2)
    broken.lock = threading.Lock()
    with pytest.raises(polyad.errors.ArgumentError, match="cannot be copied"):
        adopt(broken)


def test_a_checkpoint_inside_a_module_is_refused_where_it_would_draw_another_mask():
    class Saving(Net):
        def forward(self, x):
            return self.out(torch.utils.checkpoint.checkpoint(super().forward, x, use_reentrant=False))

    net = adopt(made(Saving()))
    with pytest.raises(polyad.errors.UnsupportedError, match="checkpoint"):
        gradient(lambda x: xp.sum(net(x)), arrays("torch", X))
