"""What torch's graph proves of rows: never a falsehood, and the truth for what models are made of."""

import importlib
import itertools

import pytest

from polyad import batched_jacobian
from polyad.backends import get
from polyad.errors import RowsMixError

torch = pytest.importorskip("torch")
functional = torch.nn.functional
rows_apart = importlib.import_module("polyad.backends.torch_rows").rows_apart  # torch is there: its absence would fail

ROWS = 4
W = torch.linspace(-1, 1, ROWS * ROWS, dtype=torch.float64).reshape(ROWS, ROWS) + 0.3 * torch.eye(ROWS)
V = torch.linspace(0.5, 2, ROWS, dtype=torch.float64)
X = torch.sin(torch.arange(1.0, 1.0 + ROWS * ROWS, dtype=torch.float64)).reshape(ROWS, ROWS)

# Of x with as many rows as columns: what mixes them has the right shape.
APART = {
    "tanh(x @ w + b)": lambda x: torch.tanh(x @ W + V),
    "addmm": lambda x: torch.addmm(V, x, W),
    "x * x": lambda x: x * x,
    "x * w": lambda x: x * W,
    "x * v": lambda x: x * V,
    "x + row sums": lambda x: x + x.sum(1, keepdim=True),
    "x + row sums, indexed": lambda x: x * x.sum(-1)[:, None],
    "softmax of a row": lambda x: torch.softmax(x, -1),
    "log_softmax": lambda x: functional.log_softmax(x, 1),
    "logsumexp": lambda x: torch.logsumexp(x, 1),
    "mean, max": lambda x: x.mean(1) + x.amax(-1),
    "columns": lambda x: x[:, 1:] * x[:, :1],
    "one column": lambda x: x[:, 2] ** 3,
    "stack": lambda x: torch.stack([x[:, 0], x[:, 1] * x[:, 2]], -1),
    "cat": lambda x: torch.cat([x, W * x], 1),
    "cat with constants": lambda x: torch.cat([W, x], 1),
    "where": lambda x: torch.where(x > 0, x, 0.1 * x),
    "view and back": lambda x: torch.sin(x.reshape(-1)).reshape(ROWS, ROWS),
    "folded linear": lambda x: functional.linear(torch.tanh(x.reshape(ROWS, 2, 2)), W[:3, :2], V[:3]),
    "permuted features": lambda x: x.reshape(ROWS, 2, 2).transpose(-1, 1).permute(0, 2, 1) * 2,
    "attention within a row": lambda x: torch.bmm(x.reshape(ROWS, 2, 2), x.reshape(ROWS, 2, 2).mT),
    "layer_norm": lambda x: functional.layer_norm(x, (ROWS,), V, V),
    "batch_norm with known statistics": lambda x: functional.batch_norm(x, V, V**2, V, V, training=False),
    "convolution": lambda x: functional.conv1d(x[:, None], W[:2, None, :3], padding=1),
    "captured and trained": lambda x: x @ W.clone().requires_grad_(),
    "constant": lambda x: W.clone(),
    "itself": lambda x: x,
    "expand": lambda x: x[:, :1].expand(-1, ROWS) * W,
    "powers": lambda x: torch.exp(x) ** W + 2.0**x + x**3,
    "between bounds": lambda x: x.clamp(-0.5, 0.5) + torch.clamp(x, W, W + x),
    "statistics of a row": lambda x: sum(torch.native_layer_norm(x, (ROWS,), V, V, 1e-5)),
    "mean and variance of a row": lambda x: sum(torch.var_mean(x, 1)) + x.var(-1),
    "both with their axes": lambda x: x * sum(torch.var_mean(x, (-1,), keepdim=True)),
    "unbind": lambda x: x.unbind(1)[0] * x.unbind(1)[3],
}
MIXED = {
    "w @ x": lambda x: W @ x,
    "x.T @ w": lambda x: x.T @ W,
    "x @ x.T": lambda x: x @ x.T,
    "x.T": lambda x: torch.tanh(x.T),
    "transpose": lambda x: x.transpose(0, 1),
    "permute": lambda x: x.permute(1, 0),
    "variances of columns": lambda x: x + x.var(0),
    "mean and variance of columns": lambda x: x * sum(torch.var_mean(x, 0, keepdim=True)),
    "variance of all": lambda x: x * sum(torch.var_mean(x)),
    "column sums": lambda x: x + x.sum(0),
    "column means": lambda x: x - x.mean(0, keepdim=True),
    "everything": lambda x: x * x.sum(),
    "a row of numbers": lambda x: x * x.sum(1),
    "softmax of a column": lambda x: torch.softmax(x, 0),
    "cumsum": lambda x: torch.cumsum(x, 0),
    "flip": lambda x: x.flip(0),
    "roll": lambda x: x.roll(1, 0),
    "the first row": lambda x: x + x[:1],
    "the first row, selected": lambda x: x * x[0],
    "permuted rows": lambda x: x[[1, 0, 3, 2]],
    "half of them": lambda x: torch.cat([x[:2], x[:2]], 0),
    "stack in front": lambda x: torch.stack([x[1], x[0], x[2], x[3]], 0),
    "reshape that mixes": lambda x: x.reshape(2, 8).T.reshape(ROWS, ROWS),
    "batch_norm": lambda x: functional.batch_norm(x, None, None, training=True),
    "layer_norm over all": lambda x: functional.layer_norm(x, (ROWS, ROWS)),
    "attention over rows": lambda x: functional.scaled_dot_product_attention(x[None], x[None], x[None])[0],
    "bmm over rows": lambda x: torch.bmm(x[None], x[None])[0],
    "addmm with itself": lambda x: torch.addmm(x, x, x),
    "distances": lambda x: torch.cdist(x, x),
    "sorted": lambda x: torch.sort(x, 0).values,
    "unsqueezed in front": lambda x: (x[None] + x[:, None]).sum(1),
    "expanded in front": lambda x: x.sum(1).expand(ROWS, ROWS),
    "between bounds of another row": lambda x: torch.clamp(x, x[:1] - 1, x[:1]),
    "a power of row sums": lambda x: torch.exp(x) ** x.sum(1),
    "unbind in front": lambda x: x * x.unbind(0)[3],
    "addmm of rows": lambda x: torch.addmm(x.sum(1), x, W),
    "addmm from the left": lambda x: torch.addmm(V, W, x),
    "mm from the left": lambda x: torch.mm(torch.mm(x, W).T, W),
    "a row for all": lambda x: torch.tanh(x)[0].expand(ROWS, ROWS),
}


def proved(f):
    x = X.clone().requires_grad_()
    return rows_apart(f(x), x, ROWS)


def independent(f):
    """Whether they are, by the whole Jacobian."""
    J = torch.autograd.functional.jacobian(f, X)
    J = J.movedim(J.ndim - 2, 1)
    return not any(J[i, j].abs().max() > 1e-12 for i, j in itertools.permutations(range(ROWS), 2))


@pytest.mark.parametrize("name", APART)
def test_what_models_are_made_of_is_proved(name):
    assert independent(APART[name])
    assert proved(APART[name])


@pytest.mark.parametrize("name", MIXED)
def test_what_mixes_rows_is_never_proved(name):
    assert not independent(MIXED[name])
    assert not proved(MIXED[name])


@pytest.mark.parametrize("first", [name for name, f in APART.items() if f(X).shape == X.shape])
def test_compositions_are_proved_if_both_parts_are(first):
    f = APART[first]
    for g in APART.values():
        assert proved(lambda x, g=g: g(torch.sin(f(x))))
    if first != "constant":
        for g in MIXED.values():
            assert not proved(lambda x, g=g: g(f(x)))
            assert not proved(lambda x, g=g: f(x) + g(x).sum())


class Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.tanh(x)

    @staticmethod
    def backward(ctx, grad):
        return grad.flip(0)


def test_a_custom_function_proves_nothing_whatever_its_name():
    x = X.clone().requires_grad_()
    y = Tanh.apply(x)
    assert y.grad_fn.name() == "TanhBackward"
    assert not rows_apart(y, x, ROWS)


def test_a_result_of_another_shape_than_the_first_proves_nothing():
    """Statistics of all rows, which are the second and third result of a function that is by rows."""

    class Node:
        next_functions = ()

        def __init__(self, shapes, *behind):
            self._input_metadata = [type("Metadata", (), {"shape": shape}) for shape in shapes]
            self.next_functions = behind

        def name(self):
            return "TanhBackward0"

    x = X.clone().requires_grad_()
    leaf = torch.tanh(x).grad_fn.next_functions[0]

    class Result:
        def __init__(self, place, number):
            self.grad_fn = Node([(ROWS, ROWS)], (Node([(ROWS, ROWS), place], leaf), number))

    assert rows_apart(Result((ROWS, ROWS), 0), x, ROWS)
    assert rows_apart(Result((ROWS, 1), 1), x, ROWS)
    assert not rows_apart(Result((ROWS,), 1), x, ROWS)
    assert not rows_apart(Result((1, ROWS), 1), x, ROWS)


def test_a_type_that_nodes_of_several_names_share_is_asked_each_time():
    class Node:
        def __init__(self, name, *behind):
            self._input_metadata = [type("Metadata", (), {"shape": (ROWS, ROWS)})]
            self.next_functions, self.name = behind, lambda: name

    x = X.clone().requires_grad_()
    leaf = torch.tanh(x).grad_fn.next_functions[0]
    y = type("Result", (), {"grad_fn": Node("TanhBackward0", leaf)})
    assert rows_apart(y, x, ROWS)
    y.grad_fn = Node("FlipBackward0", leaf)
    assert not rows_apart(y, x, ROWS)


def test_an_alias_of_a_traced_array_is_where_the_proof_ends():
    w = torch.ones(ROWS, ROWS, dtype=torch.float64, requires_grad=True)
    x = (w @ X.clone()).view(ROWS, ROWS)  # rows mix on the way to x, which is not what is asked
    assert rows_apart(torch.tanh(x @ W), x, ROWS)


@pytest.mark.parametrize("name", [name for name, f in MIXED.items() if f(X).shape == X.shape])
def test_mixed_rows_are_refused(name):
    with pytest.raises(RowsMixError):
        batched_jacobian(MIXED[name], X, mode="reverse")


@pytest.mark.parametrize("name", [name for name, f in MIXED.items() if f(X).shape == X.shape])
@pytest.mark.parametrize("nested", [False, True])
def test_mixed_rows_of_one_output_are_refused(name, nested):
    x = X.clone().requires_grad_(nested)
    with pytest.raises(RowsMixError):
        batched_jacobian(lambda x: (MIXED[name](x) * W).sum(1), x)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_one_output_takes_one_plain_pullback_and_has_every_order(shape):
    """y = w . x^3 by rows: J = 3 w x^2, its sum of squares has the gradient 36 w^2 x^3 and the slope 18 w x^4 in w."""
    x, w = X.clone().requires_grad_(), V.clone().requires_grad_()
    J = batched_jacobian(lambda x: (x**3 @ w).reshape(-1, *shape), x)
    assert J.shape == (ROWS, *shape, ROWS)
    assert torch.allclose(J.reshape(ROWS, ROWS), 3 * w * x**2, rtol=1e-12)
    by_x, by_w = torch.autograd.grad((J**2).sum(), (x, w), create_graph=True)
    assert torch.allclose(by_x, 36 * w**2 * x**3, rtol=1e-12)
    assert torch.allclose(by_w, (18 * w * x**4).sum(0), rtol=1e-12)
    (again,) = torch.autograd.grad(by_x.sum(), x)
    assert torch.allclose(again, 108 * w**2 * x**2, rtol=1e-12)


def test_a_proof_saves_the_second_evaluation():
    calls = []

    def f(x):
        calls.append(len(x))
        return torch.tanh(x @ W)

    x = torch.cat([X] * 32)
    J = batched_jacobian(f, x, mode="reverse")
    assert calls == [len(x)]
    assert torch.allclose(J, (1 - torch.tanh(x @ W) ** 2)[:, :, None] * W.T, rtol=1e-12)
    assert not get("numpy").rows_apart(None, 4)
