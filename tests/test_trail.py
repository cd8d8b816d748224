"""What the trail of jets says: no program that mixes rows is taken for one that does not."""

import copy
import subprocess
import sys

import numpy as np
import pytest

import polyad
from polyad import batched_jacobian, derivative, jacobian, laplacian, stop_gradient, xp
from polyad.jets import Trail, pushforwards
from tests.examples import arrays, difference, host

B = 3  # as many rows as columns: what is taken for a row may be a column
X = np.random.Generator(np.random.Philox(5)).normal(size=(B, B))


def _constant(random, *shapes):
    return random.normal(size=shapes[random.integers(len(shapes))]) + 2.0


def _axis(random, x):
    return int(random.integers(-x.ndim, x.ndim))


UNARY = {
    "tanh": lambda random, x: xp.tanh(x),
    "square": lambda random, x: x**2,
    "reciprocal": lambda random, x: 1.0 / (x**2 + 1.5),
    "abs": lambda random, x: abs(x),
    "sigmoid": lambda random, x: xp.sigmoid(x),
    "softmax": lambda random, x: xp.softmax(x, axis=_axis(random, x)),
    "where": lambda random, x: xp.where(x > 0, x, xp.sin(x)),
    "maximum": lambda random, x: xp.maximum(x, 0.3),
    "times": lambda random, x: x * _constant(random, (), (B,), (1, B), (B, 1), (B, B)),
    "plus": lambda random, x: _constant(random, (), (B,), (1, B), (B, 1), (B, B)) + x,
    "more rows": lambda random, x: x * _constant(random, (2, 1, 1), (B, 1, 1)),
    "matmul": lambda random, x: x @ _constant(random, (B, B), (B,)) if x.shape[-1] == B else x,
    "left": lambda random, x: _constant(random, (B, B)) @ x if x.shape[0] == B else x,
    "einsum": lambda random, x: xp.einsum(["ij->ji", "ij->ij"][random.integers(2)], x) if x.ndim == 2 else x,
    "T": lambda random, x: x.T,
    "flip": lambda random, x: xp.flip(x, axis=_axis(random, x)) if x.ndim else x,
    "roll": lambda random, x: xp.roll(x, 1, axis=_axis(random, x)) if x.ndim else x,
    "cumulative": lambda random, x: xp.cumulative_sum(x, axis=_axis(random, x)) if x.ndim else x,
    "sum": lambda random, x: xp.sum(x, axis=_axis(random, x), keepdims=bool(random.integers(2))) if x.ndim else x,
    "mean": lambda random, x: xp.mean(x, axis=_axis(random, x), keepdims=True) if x.ndim else x,
    "max": lambda random, x: xp.max(x, axis=_axis(random, x), keepdims=True) if x.ndim else x,
    "sum of all": lambda random, x: x + xp.sum(x),
    "first rows": lambda random, x: xp.concat([x[:1], x[:-1]], axis=0) if x.ndim else x,
    "columns": lambda random, x: xp.concat([x, x[:, :1]], axis=_axis(random, x)) if x.ndim == 2 else x,
    "column": lambda random, x: x[:, 0] if x.ndim > 1 else x,
    "last": lambda random, x: x[..., -1] if x.ndim > 1 else x,
    "row": lambda random, x: x * x[0] if x.ndim else x,
    "new axis": lambda random, x: x[:, None] if x.ndim == 2 else x,
    "axis in front": lambda random, x: x[None] if x.ndim == 2 else x,
    "turned": lambda random, x: xp.reshape(x, tuple(reversed(x.shape))),
    "flat": lambda random, x: xp.reshape(x, (x.shape[0], -1)) if x.ndim > 1 else x,
    "permuted": lambda random, x: xp.permute_dims(x, tuple(int(i) for i in random.permutation(x.ndim))),
    "mapped": lambda random, x: polyad.vmap(xp.sin, in_axes=1, out_axes=1)(x) if x.ndim == 2 else x,
    "mapped and turned": lambda random, x: polyad.vmap(xp.sin, out_axes=x.ndim - 1)(x) if x.ndim else x,
    "slope": lambda random, x: polyad.gradient(lambda x: xp.sum(x**3) + x.ravel()[0] ** 2 * xp.sum(x), x),
    "constant": lambda random, x: x + stop_gradient(xp.sum(x)) * x,
}
BINARY = {
    "plus": lambda a, b: a + b,
    "times": lambda a, b: a * b,
    "atan2": lambda a, b: xp.atan2(a, b),
    "matmul": lambda a, b: a @ b if a.ndim == b.ndim == 2 and a.shape[1] == b.shape[0] else a,
    "outer": lambda a, b: a[:, None] * b if a.ndim == b.ndim == 1 else b,
}


def program(seed):
    """A function of x that does the same whenever it is called."""

    def f(x):
        random = np.random.Generator(np.random.Philox(seed))
        known = [x]
        for _ in range(random.integers(1, 6)):
            a, b = (known[random.integers(len(known))] for _ in range(2))
            try:
                if random.integers(4):
                    y = UNARY[sorted(UNARY)[random.integers(len(UNARY))]](random, a)
                else:
                    y = BINARY[sorted(BINARY)[random.integers(len(BINARY))]](a, b)
            except (ValueError, TypeError, IndexError, polyad.errors.PolyadError):
                continue
            if y.ndim <= 3 and y.size < 100:
                known.append(y)
        return known[-1]

    return f


def test_no_random_program_that_mixes_rows_is_said_to_keep_them_apart():
    apart = mixed = 0
    for seed in range(600):
        f, trail = program(seed), Trail(B)
        with np.errstate(all="ignore"):
            (y,), _ = pushforwards(lambda x, f=f: (f(x),), (X,), (np.eye(B)[:, None, :],), trail=trail)
            if y.shape[:1] != (B,):
                continue
            full = np.asarray(jacobian(f, X, backend="numpy"))
        full = np.moveaxis(full.reshape(B, -1, B, B), 2, 1)
        between = max(np.abs(full[i, j]).max(initial=0.0) for i in range(B) for j in range(B) if i != j)
        apart += trail.apart
        mixed += between > 1e-9
        assert not (trail.apart and between > 0), seed
    assert apart > 100  # the proof is worth something
    assert mixed > 100  # and so is this test


def test_rows_that_a_net_keeps_apart_are_evaluated_once(backend, monkeypatch):
    if backend == "torch":
        import polyad.backends.torch as adapter

        monkeypatch.setattr(adapter, "has_custom_functions", lambda: False)  # tests have some
    calls = []
    x, w = arrays(backend, np.linspace(-1, 1, 24).reshape(12, 2), np.array([[0.3, -0.8], [0.7, 0.4]]))

    def f(x):
        calls.append(1)
        return xp.concat([xp.tanh(x @ w), x[:, :1] ** 2], axis=1)

    laps = laplacian(f, x, backend=backend)
    assert len(calls) == (2 if backend == "autograd" else 1)  # whose primitives take jets for arrays
    y = np.tanh(host(x)[0] @ host(w)[0])
    bent = -2 * y * (1 - y**2) * (host(w)[0] ** 2).sum(0)
    assert difference(laps, np.concatenate([bent, np.full((12, 1), 2.0)], axis=1)) < 1e-13


def reverse(base):
    """The text of a function whose derivative is turned around, and in which no jet is made."""
    return f"""
class Reverse({base}):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, grad):
        return -grad
"""


CUSTOM = f"""
import torch, polyad
from polyad import derivative, laplacian, xp
from polyad.backends.torch_graph import has_custom_functions

assert not has_custom_functions()
assert polyad.backends.get("torch").refuses_jets()
{reverse("torch.autograd.Function")}
assert has_custom_functions()
x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
found = laplacian(lambda x: Reverse.apply(xp.sin(x)), x)
torch.testing.assert_close(found, torch.sin(x))
found = derivative(lambda t: Reverse.apply(xp.sin(t)), x[0, 0], order=2)
torch.testing.assert_close(found, torch.sin(x[0, 0]))
"""


def test_a_rule_of_somebody_else_that_makes_no_jet_is_asked_for():
    pytest.importorskip("torch")
    out = subprocess.run([sys.executable, "-c", CUSTOM], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr


RULES = {
    "derived": f"""
from torch.utils.checkpoint import CheckpointFunction
{reverse("CheckpointFunction")}
reverse = Reverse.apply
""",
    "hook": """
reverse = torch.nn.Identity()
reverse.register_full_backward_hook(lambda module, grads, cotangents: (-grads[0],))
""",
    "hook before": """
reverse = torch.nn.Identity()
reverse.register_full_backward_pre_hook(lambda module, cotangents: (-cotangents[0],))
""",
}
REVERSED = """
import torch, polyad
from polyad import gradient, laplacian, xp
from polyad.backends import get

x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
gradient(lambda x: xp.sum(laplacian(lambda x: xp.sin(w * x), x) ** 2))(x)  # polyad's own hooks count for nothing
assert get("torch").refuses_jets()
RULE
assert not get("torch").refuses_jets()
torch.testing.assert_close(laplacian(lambda x: reverse(xp.sin(x)), x), torch.sin(x))
"""


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_that_only_the_tape_of_torch_sees_is_asked_for(rule):
    pytest.importorskip("torch")
    program = REVERSED.replace("RULE", RULES[rule])
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr


def test_a_function_of_the_name_of_one_of_torch_is_another_one(monkeypatch):
    torch = pytest.importorskip("torch")
    from torch.overrides import handle_torch_function, has_torch_function_unary

    import polyad.backends.torch as adapter

    monkeypatch.setattr(adapter, "has_custom_functions", lambda: False)  # tests have some

    def tanh(x):
        if has_torch_function_unary(x):
            return handle_torch_function(tanh, (x,), x)
        return x.detach() * x

    @torch.library.custom_op("polyad_test::sin", mutates_args=())
    def sin(x: torch.Tensor) -> torch.Tensor:
        return x.sin()

    sin.register_autograd(
        lambda ctx, grad: -grad * ctx.saved_tensors[0].cos(),
        setup_context=lambda ctx, inputs, output: ctx.save_for_backward(inputs[0]),
    )
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(6, 2)
    torch.testing.assert_close(laplacian(lambda x: tanh(x) * x, x), 2 * x)
    torch.testing.assert_close(laplacian(lambda x: torch.ops.polyad_test.sin(x), x), torch.sin(x))
    torch.testing.assert_close(laplacian(torch.ops.aten.sin, x), -torch.sin(x))


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "amin", "std", "var"])
@pytest.mark.parametrize("dim", [(), []])
def test_no_axes_are_all_axes_to_torch(name, dim):
    torch = pytest.importorskip("torch")
    x, f = torch.tensor(X), getattr(torch, name)
    (y,), (dy,) = pushforwards(lambda x: (f(x, dim=dim),), (x,), (torch.cos(x)[None],))
    torch.testing.assert_close(y, f(x, dim=dim))
    torch.testing.assert_close(dy[0], torch.func.jvp(f, (x,), (torch.cos(x),))[1])  # with dim=() that of std is nan


def test_a_copy_is_compared(monkeypatch):
    torch = pytest.importorskip("torch")
    import polyad.backends.torch as adapter

    monkeypatch.setattr(adapter, "has_custom_functions", lambda: False)  # tests have some
    x = torch.tensor(X)
    found = laplacian(lambda x: xp.sin(x) * copy.copy(x), x)
    torch.testing.assert_close(found, -torch.sin(x) * x)  # torch's copy is a constant
    inner = Trail(B)
    pushforwards(
        lambda x: (polyad.jvp(copy.copy, (x,), (x,))[1],), (x,), (torch.eye(B)[:, None].double(),), trail=inner
    )
    assert not inner.own  # of a pass around too


@pytest.mark.parametrize("kept", [True, False])
def test_functions_of_torch_with_a_kink_are_compared(kept):
    torch = pytest.importorskip("torch")
    trail = Trail(4)
    x = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2)
    f = torch.tanh if kept else torch.relu
    pushforwards(lambda x: (f(x),), (x,), (torch.eye(2, dtype=x.dtype)[:, None, :],), trail=trail)
    assert trail.own is kept


def test_a_series_through_functions_of_polyad_is_one_evaluation(monkeypatch):
    pytest.importorskip("torch")
    import polyad.backends.torch as adapter

    monkeypatch.setattr(adapter, "has_custom_functions", lambda: False)
    calls = []

    def f(t):
        calls.append(1)
        return xp.sin(2 * t)

    t = arrays("torch", np.array(0.3))
    assert difference(derivative(f, t, order=3), -8 * np.cos(0.6)) < 1e-13
    assert len(calls) == 1


def test_rows_by_columns_are_those_of_the_framework(backend):
    x, w = arrays(backend, X, X.T + 1)
    found = batched_jacobian(lambda x: xp.tanh(x @ w) * x, x, mode="forward", backend=backend)
    y, v = np.tanh(X @ (X.T + 1)), X.T + 1
    expected = ((1 - y**2) * X)[:, :, None] * v.T + y[:, :, None] * np.eye(B)
    assert difference(found, expected) < 1e-12
