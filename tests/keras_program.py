"""What tests/test_models_keras.py runs in a process of its own, since Keras chooses its backend when it is imported.

python -m tests.keras_program jax|torch. A test that fails raises.
"""

import os
import sys

BACKEND = sys.argv[1]
os.environ["KERAS_BACKEND"] = BACKEND
os.environ["JAX_ENABLE_X64"] = "1"

import pickle  # noqa: E402

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

import polyad  # noqa: E402
from polyad import StatefulLayer, adopt, jacobian, release, value_and_gradient, xp  # noqa: E402
from polyad.models.keras import in_double  # noqa: E402
from tests.examples import GENERATOR, arrays, difference  # noqa: E402

X = GENERATOR.normal(size=(8, 4, 2))


def made(dropout=0.3):
    """(B, 4, 2) to (B, 2): Conv, BatchNormalization and Dropout."""
    keras.config.set_floatx("float64")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((4, 2)),
            layers.Conv1D(3, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.Activation("tanh"),
            layers.Dropout(dropout),
            layers.GlobalAveragePooling1D(),
            layers.Dense(2, name="out"),
        ]
    )


def fast(f):
    if BACKEND != "jax":
        return f
    import jax

    return jax.jit(f, compiler_options={"xla_backend_optimization_level": 0})


def jacobian_loss(net, params, x):
    both = StatefulLayer(net.model, params, net.state)
    value = xp.sum(both(x) ** 2)
    return value + xp.sum(jacobian(both, x) ** 2), both.state


def by_hand(model, net, x):
    """(value, gradients) of the same by the derivatives of the framework and stateless_call, after one call."""
    rest = [v.value for v in model.non_trainable_variables]
    names = ["conv/kernel", "norm/gamma", "norm/beta", "out/kernel", "out/bias"]

    def first(params, x):
        return model.stateless_call([params[name] for name in names], rest, x, training=True)

    if BACKEND == "jax":
        import jax

        def loss(params, x):
            y, after = first(params, x)
            given = [params[name] for name in names]
            again = lambda x: model.stateless_call(given, after, x, training=True)[0]  # noqa: E731
            return (y**2).sum() + (jax.jacrev(again)(x) ** 2).sum()

        with in_double():
            return fast(jax.value_and_grad(loss, argnums=(0, 1)))(net.params, x)
    import torch

    from polyad.models.torch_functions import Inside

    def drawing(count):  # Keras asks torch's own generator; these are the numbers of the state
        return Inside({"seed": torch.tensor(0), "count": torch.tensor(count)})

    params = {name: p.clone().requires_grad_() for name, p in net.params.items()}
    x = x.clone().requires_grad_()
    with in_double():
        with drawing(0):
            y, _ = first(params, x)
        with drawing(1):
            again, _ = first(params, x)
    rows = [torch.autograd.grad(entry, x, create_graph=True)[0] for entry in again.reshape(-1)]
    value = (y**2).sum() + (torch.stack(rows) ** 2).sum()
    *grads, of_x = torch.autograd.grad(value, [*params.values(), x])
    return value, (dict(zip(params, grads, strict=True)), of_x)


def test_a_jacobian_inside_a_loss_is_the_one_written_by_hand(model, net, x):
    value, (of_params, of_x) = by_hand(model, net, x)

    def all_strategies(params, x):
        results = {}
        for policy in ("taped", "recompute", "forward_over_reverse"):
            with polyad.nested_switching(policy):
                f = lambda p, x: jacobian_loss(net, p, x)  # noqa: E731
                (found, _), grads = value_and_gradient(f, params, x, argnums=(0, 1), has_aux=True)
            results[policy] = found, *grads
        return results

    for found, found_params, found_x in fast(all_strategies)(net.params, x).values():
        assert difference(found, value) < 1e-12
        assert difference(found_params, of_params) < 1e-10
        assert difference(found_x, of_x) < 1e-10


def test_the_state_moves_once_a_plain_call_and_the_model_never(model, net, x):
    weights, before = [np.array(w) for w in model.get_weights()], net.state
    jacobian(net, x)
    assert net.state is before
    first = net(x)
    assert difference(net(x), first) > 1e-3  # another mask
    assert all(np.array_equal(a, b) for a, b in zip(weights, model.get_weights(), strict=True))
    moved = net.state["variables"]["norm/moving_mean"]
    assert float(abs(moved).max()) > 1e-5
    assert not getattr(moved, "requires_grad", False)


def test_test_mode(model, net, x):
    net(x)
    tested = StatefulLayer(net.model, net.params, polyad.test_mode(net.state))
    before = tested.state
    with in_double():
        assert difference(tested(x), release(tested)(x, training=False)) < 1e-12
    assert tested.state is before
    J = fast(lambda x: jacobian(tested, x))(x)
    rows = fast(lambda x: polyad.batched_jacobian(tested, x))(x)
    assert difference(rows, xp.stack([J[b, :, b] for b in range(8)])) < 1e-12
    hessian = fast(lambda x: polyad.hessian(lambda x: xp.sum(tested(x)[:, 0]), x))(x)
    expected = [sum(hessian[b, i, j, b, i, j] for i in range(4) for j in range(2)) for b in range(8)]
    lap = fast(lambda x: polyad.laplacian(tested, x))(x)
    assert difference(lap[:, 0], xp.stack(expected)) < 1e-11


def test_a_net_can_be_pickled(model, net, x):
    assert difference(pickle.loads(pickle.dumps(net))(x), net.value_and_state(x)[0]) < 1e-12


def test_training(model, net, x):
    if BACKEND == "jax":
        traces = []

        @fast
        def step(params, state):
            traces.append(1)
            both = StatefulLayer(net.model, params, state)
            (value, after), grads = value_and_gradient(lambda p: jacobian_loss(both, p, x), params, has_aux=True)
            return polyad.trees.map(lambda p, g: p - 0.05 * g, params, grads), after, value

        params, state, values = net.params, net.state, []
        for _ in range(15):
            params, state, value = step(params, state)
            values.append(float(value))
        assert len(traces) == 1
    else:
        import torch

        params = {name: p.requires_grad_() for name, p in net.params.items()}
        optimizer, values, state = torch.optim.SGD(params.values(), lr=0.05), [], net.state
        for _ in range(15):
            optimizer.zero_grad()
            value, state = jacobian_loss(StatefulLayer(net.model, params, state), params, x)
            value.backward()
            optimizer.step()
            values.append(float(value.detach()))
    assert np.mean(values[-3:]) < 0.7 * np.mean(values[:3])


def test_what_cannot_be_is_said(model, net, x):
    with pytest.raises(polyad.errors.ArgumentError, match="has no parameters yet"):
        adopt(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises(polyad.errors.ParameterError, match=r"polyad\.adopt"):
        StatefulLayer(net.model, {"w": x}, net.state)


def main():
    tests = [f for name, f in list(globals().items()) if name.startswith("test_")]
    for test in tests:
        model = made()
        test(model, adopt(model), arrays(BACKEND, X))
        print(test.__name__)


if __name__ == "__main__":
    main()
