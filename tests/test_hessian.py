"""hessian against formulas, on every backend and in every mode."""

import numpy as np
import pytest

import polyad
from polyad import gradient, hessian, setup, xp
from tests.examples import COUPLED, X, Y, arrays, compiled, difference, host

MODES = ("auto", "forward", "reverse", "finite_difference")
POINT = np.array([0.3, 0.7, -0.4])
MATRIX = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])


def tolerance(mode):
    return 1e-6 if mode == "finite_difference" else 1e-12


def product(x):
    """x0^2 x1 + sin(x1 x2): its Hessian is full but for one entry."""
    return x[0] ** 2 * x[1] + xp.sin(x[1] * x[2])


def hessian_of_product(x):
    a, b, c = x
    sin, cos = np.sin(b * c), np.cos(b * c)
    return np.array(
        [[2 * b, 2 * a, 0], [2 * a, -(c**2) * sin, cos - b * c * sin], [0, cos - b * c * sin, -(b**2) * sin]]
    )


@pytest.mark.parametrize("mode", MODES)
def test_hessian_of_a_product_is_that_of_the_formula(backend, mode):
    actual = hessian(product, arrays(backend, POINT), mode=mode, backend=backend)
    assert difference(actual, hessian_of_product(POINT)) < tolerance(mode)


@pytest.mark.parametrize("mode", MODES)
def test_hessian_of_an_array_has_output_axes_first(backend, mode):
    x = arrays(backend, MATRIX)
    actual = hessian(lambda x: xp.sum(x, axis=1) ** 3, x, mode=mode, backend=backend)
    row = 6 * MATRIX.sum(1)
    eye = np.eye(2)
    expected = np.einsum("i,ij,ik,l,m->ijlkm", row, eye, eye, np.ones(3), np.ones(3))
    assert tuple(actual.shape) == (2, 2, 3, 2, 3)
    assert difference(actual, expected) < tolerance(mode)


def test_trees_give_trees_of_trees(backend):
    a, b = arrays(backend, POINT, 2.0)

    def f(p):
        return {"y": (xp.sum(p["a"] ** 2) * p["b"][0] ** 3, None)}

    (blocks, none) = hessian(f, {"a": a, "b": [b]}, backend=backend)["y"]
    assert none is None
    assert difference(blocks["a"]["a"], 16 * np.eye(3)) < 1e-14
    assert difference(blocks["a"]["b"][0], 24 * POINT) < 1e-14
    assert difference(blocks["b"][0]["a"], 24 * POINT) < 1e-14
    assert difference(blocks["b"][0]["b"][0], np.array(12 * (POINT**2).sum())) < 1e-14


def test_argnums_give_a_tuple_of_tuples(backend):
    a, b = arrays(backend, POINT, 2 * POINT)
    blocks = hessian(lambda a, b: xp.sum(a**2 * b), a, b, argnums=(-1, 0), backend=backend)
    assert [[type(block).__name__ == "tuple" for block in row] for row in blocks] == [[False] * 2] * 2
    assert not host(blocks[0][0])[0].any()
    assert difference(blocks[0][1], np.diag(2 * POINT)) < 1e-14
    assert difference(blocks[1][0], np.diag(2 * POINT)) < 1e-14
    assert difference(blocks[1][1], np.diag(4 * POINT)) < 1e-14
    assert (
        difference(hessian(lambda a, b: xp.sum(a**2 * b), a, b, argnums=0, backend=backend), np.diag(4 * POINT)) < 1e-14
    )


@pytest.mark.parametrize("mode", MODES)
def test_aux_comes_back_with_its_derivative_to_the_outside(backend, mode):
    x = arrays(backend, POINT)

    def f(x):
        return product(x), {"square": x**2, "name": "f"}

    hess, aux = hessian(f, x, has_aux=True, mode=mode, backend=backend)
    assert difference(hess, hessian_of_product(POINT)) < tolerance(mode)
    assert aux["name"] == "f"
    assert difference(aux["square"], POINT**2) < 1e-15
    outer = gradient(lambda x: xp.sum(hessian(f, x, has_aux=True, mode=mode)[1]["square"]), x, backend=backend)
    assert difference(outer, 2 * POINT) < 1e-14


def test_without_arguments_it_returns_a_function(backend):
    f = hessian(lambda x, power=1: xp.sum(x**power), backend=backend)
    assert difference(f(arrays(backend, POINT), power=3), np.diag(6 * POINT)) < 1e-14


def test_scalars_empty_arrays_and_constants(backend):
    assert float(hessian(lambda x: x**3, 2.0, backend=backend)) == 12.0
    assert tuple(hessian(lambda x: xp.sum(x**2), arrays(backend, np.zeros((0, 2))), backend=backend).shape) == (
        0,
        2,
        0,
        2,
    )
    assert hessian(lambda p: 1.0, {}, backend=backend) == {}
    assert not host(hessian(lambda x: 1.0, arrays(backend, POINT), backend=backend))[0].any()
    assert not host(hessian(xp.sum, arrays(backend, POINT), backend=backend))[0].any()


def test_float32_stays_float32(backend):
    x = arrays(backend, POINT, dtype="float32")
    assert host(hessian(lambda x: xp.sum(xp.exp(x) * 2.0), x, backend=backend))[0].dtype == np.float32


def test_more_entries_than_the_pass_changes_at(backend):
    x = np.linspace(0.2, 1.4, 70)
    expected = np.diag(2 / x) + 2 * np.ones((70, 70))
    actual = hessian(lambda x: 2 * xp.sum(x * xp.log(x)) + xp.sum(x) ** 2, arrays(backend, x), backend=backend)
    assert difference(actual, expected) < 1e-13


@pytest.mark.parametrize("outer", ["forward", "reverse"])
@pytest.mark.parametrize("inner", ["auto", "forward", "reverse"])
def test_third_derivatives_and_captured_arrays(backend, inner, outer):
    x, w = arrays(backend, POINT, np.array([1.5, -0.5, 2.0]))

    def loss(w, x):
        captured = xp.tanh(w)
        return xp.sum(hessian(lambda x: xp.sum(captured * x**4), x, mode=inner))

    tanh = np.tanh(host(w)[0])
    expected = (12 * POINT**2 * (1 - tanh**2), 24 * POINT * tanh)
    assert difference(gradient(loss, w, x, argnums=(0, 1), mode=outer, backend=backend), expected) < 1e-12


@pytest.mark.parametrize("outer", ["forward", "reverse"])
@pytest.mark.parametrize("inner", ["forward", "reverse"])
def test_perturbations_are_not_confused(backend, inner, outer):
    one, two = arrays(backend, 1.0, 2.0)
    # d/dx of x * d2/dy2 (x y^2 + y) = d/dx 2 x^2
    actual = gradient(lambda x: x * hessian(lambda y: x * y**2 + y, one, mode=inner), two, mode=outer, backend=backend)
    assert float(host(actual)[0]) == 8.0


def net_loss(params, x, y, state):
    net = polyad.StatefulLayer(COUPLED, params, state)
    H = hessian(lambda x: xp.sum((net(x) - y) ** 2), x)
    return xp.sum(H**2) + xp.sum(net(x) ** 2)


@pytest.fixture(scope="module")
def expected_of_net():
    params, state = setup(0, COUPLED, backend="numpy", dtype="float64")
    return gradient(net_loss, params, X[:4], Y[:4], state, argnums=(0, 1, 2), backend="numpy")


def test_a_loss_of_the_hessian_of_a_net_has_the_same_gradient_everywhere(backend, expected_of_net):
    params, state = setup(0, COUPLED, backend=backend, dtype="float64")
    x, y = arrays(backend, X[:4], Y[:4])
    with polyad.use_backend(backend):
        grads = gradient(lambda *args: net_loss(*args, state), argnums=(0, 1, 2))
        actual = compiled(backend, grads)(params, x, y)
        if backend == "numpy":
            assert polyad.check_gradients(net_loss, params, x, y, state, argnums=(1, 2)) < 1e-6
            estimate = gradient(net_loss, params, x, y, state, mode="finite_difference")
            assert close(actual[0], estimate, 1e-6)
    assert close(actual, expected_of_net, 1e-10)


def close(actual, expected, rtol):
    """BatchNorm cancels the bias before it, so leaves are compared with the largest of all."""
    size = max(np.max(np.abs(e)) for e in host(expected))
    return all(np.max(np.abs(a - e)) < rtol * size for a, e in zip(host(actual), host(expected), strict=True))


def test_errors_name_the_operator_and_the_leaf(backend):
    with polyad.use_backend(backend):
        with pytest.raises(polyad.errors.DTypeError, match=r"hessian: p\['n'\] is the int 3"):
            hessian(lambda p: p["n"] ** 2, {"n": 3})
        with pytest.raises(polyad.errors.LeafError, match="hessian: f returned 'text'"):
            hessian(lambda x: "text", 1.0)
        with pytest.raises(polyad.errors.ModeError, match="no mode 'sideways'"):
            hessian(lambda x: x**2, 1.0, mode="sideways")


@pytest.mark.parametrize("transform", ["jit", "jit(grad)", "vmap", "jacfwd"])
def test_inside_the_transformations_of_jax(transform):
    jax = pytest.importorskip("jax")
    x = arrays("jax", POINT)

    def f(x):
        return hessian(product, x)

    if transform == "jit":
        assert difference(jax.jit(f)(x), hessian_of_product(POINT)) < 1e-14
    elif transform == "vmap":
        rows = np.stack([POINT, 2 * POINT])
        assert difference(jax.vmap(f)(arrays("jax", rows)), np.stack([hessian_of_product(r) for r in rows])) < 1e-14
    elif transform == "jacfwd":
        assert difference(jax.jacfwd(f)(x), jax.jacfwd(jax.hessian(product))(x)) < 1e-14
    else:
        expected = gradient(lambda x: xp.sum(hessian(product, x) ** 2), POINT, backend="numpy")
        assert difference(jax.jit(jax.grad(lambda x: xp.sum(f(x) ** 2)))(x), expected) < 1e-13


@pytest.mark.parametrize("transform", ["backward", "func.grad", "func.vmap", "func.jacfwd"])
def test_inside_the_transformations_of_torch(transform):
    torch = pytest.importorskip("torch")
    x = arrays("torch", POINT)

    def f(x):
        return xp.sum(hessian(product, x) ** 2)

    expected = gradient(f, POINT, backend="numpy")
    if transform == "backward":
        x.requires_grad_()
        f(x).backward()
        assert difference(x.grad, expected) < 1e-13
    elif transform == "func.vmap":
        rows = np.stack([POINT, 2 * POINT])
        actual = torch.func.vmap(lambda x: hessian(product, x))(arrays("torch", rows))
        assert difference(actual, np.stack([hessian_of_product(r) for r in rows])) < 1e-14
    else:
        outer = torch.func.grad if transform == "func.grad" else torch.func.jacfwd
        assert difference(outer(f)(x), expected) < 1e-13


def test_many_entries_through_a_fused_norm_of_torch_go_by_rows():
    torch = pytest.importorskip("torch")
    norm = torch.nn.LayerNorm(70, dtype=torch.float64)
    weight = torch.linspace(0.5, 2.0, 70, dtype=torch.float64)
    x = torch.sin(torch.arange(70.0, dtype=torch.float64))

    def written_out(x):
        centred = x - x.mean()
        return ((weight * centred / torch.sqrt((centred**2).mean() + norm.eps)) ** 3).sum()

    actual = hessian(lambda x: ((weight * norm(x)) ** 3).sum(), x)
    assert difference(actual, torch.func.hessian(written_out)(x)) < 1e-10


def test_a_function_with_one_pass_alone_takes_it():
    jax = pytest.importorskip("jax")
    x = arrays("jax", POINT)
    loop = hessian(lambda x: xp.sum(jax.lax.while_loop(lambda x: xp.sum(x) < 5, lambda x: 2 * x, x) ** 2), x)
    assert difference(loop, 2 * 16**2 * np.eye(3)) < 1e-14
