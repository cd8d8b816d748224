"""The engine: levels, nesting, rules against formulas, what is refused."""

import json
import math
import threading

import autograd
import autograd.numpy as anp
import numpy as np
import pytest

import polyad
from polyad import gradient, jacobian, jvp, stop_gradient, vjp, xp
from polyad.errors import DetachError, UnsupportedError
from polyad.jets import pushforwards
from polyad.jets.elementwise import PARTIALS
from polyad.jets.rule import RULES

X = np.array([0.3, -0.7, 1.2])
W = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-0.4, 0.8, 0.1]])


def slopes(f, x, order):
    """The derivative of this order of f at a number."""
    for _ in range(order):
        f = (lambda g: lambda z: gradient(g, z, backend="numpy"))(f)
    return f(np.asarray(x))


# Levels.


@pytest.mark.parametrize("outer", ["numpy", "autograd"])
def test_perturbations_of_two_levels_are_not_confused(outer):
    one = np.array(1.0)
    assert gradient(lambda x: x * gradient(lambda y: x + y, one, backend="numpy"), one, backend=outer) == 1
    f = gradient(lambda x: x * gradient(lambda y: x * y * y, 2 * x, backend="numpy"), np.array(3.0), backend=outer)
    assert f == 12 * 3**2


def test_perturbations_of_three_levels_are_not_confused():
    def inner(x, y):
        return gradient(lambda z: x * y * z**2, x + y)  # 2 x y (x + y)

    def middle(x):
        return gradient(lambda y: y * inner(x, y), x)  # d/dy (2 x² y² + 2 x y³) at y = x: 10 x³

    assert gradient(lambda x: x * middle(x), np.array(2.0)) == pytest.approx(40 * 2.0**3)


def test_a_jet_of_a_higher_level_counts_as_an_option_too():
    f = gradient(lambda x: gradient(lambda y: np.sum(np.diff(x, prepend=y[:1]) ** 3), x) @ x, X)
    step = X[0] - X[0]
    assert f == pytest.approx(np.array([-3 * step**2, 0, 0]))
    g = jacobian(lambda x: gradient(lambda y: np.sum(np.clip(x, min=y - 1) * y * x), x), X)
    assert g == pytest.approx(np.diag(2 * X))
    h = jacobian(lambda y: xp.full_like(np.zeros(3), fill_value=y), np.array(2.0), backend="numpy")
    assert h == pytest.approx(np.ones(3))


def test_a_captured_box_of_autograd_keeps_its_gradient():
    def loss(w, gradient_of):
        return anp.sum(gradient_of(lambda z: xp.sum(xp.tanh(w @ z) + z @ w), X) ** 2)

    def by_hand(w):
        slope = w.T @ (1 - anp.tanh(w @ X) ** 2) + anp.sum(w, axis=1)
        return anp.sum(slope**2)

    actual = autograd.grad(lambda w: loss(w, lambda f, x: gradient(f, x, backend="numpy")))(W)
    assert actual == pytest.approx(autograd.grad(by_hand)(W), rel=1e-12)


def test_a_box_as_the_argument_keeps_its_gradient():
    f = autograd.grad(lambda x: anp.sum(gradient(lambda z: np.sum(z**3), x, backend="numpy") ** 2))
    assert f(X) == pytest.approx(36 * X**3)


def test_directions_and_cotangents_are_differentiated():
    assert gradient(lambda v: jvp(lambda z: np.sum(z**3), (X,), (v,))[1], X) == pytest.approx(3 * X**2)
    assert gradient(lambda v: jvp(lambda z: np.sum(z**3), (v,), (v,))[1], X) == pytest.approx(9 * X**2)
    assert gradient(lambda v: vjp(lambda z: z**3, X)[1](v)[0] @ X, X) == pytest.approx(3 * X**3)


@pytest.mark.parametrize("name", ["numpy", "autograd"])
def test_threads_that_differentiate_at_once_do_not_meet(name):
    def f(z):
        return xp.sum(gradient(lambda y: xp.sum(xp.sin(y * z)), z, backend=name) ** 2)

    def expected(z):
        c, s = z * np.cos(z**2), np.cos(z**2) - z**2 * np.sin(z**2)
        return 2 * c * (s - z**2 * np.sin(z**2))

    results = {}

    def work(i):
        for _ in range(20):
            results.setdefault(i, []).append(gradient(f, X + i, backend=name))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        assert len(results[i]) == 20
        assert all(r == pytest.approx(expected(X + i)) for r in results[i])


# Rules.


def points(name):
    """Arguments inside the domain of a function of numbers."""
    a, b = np.array([0.3, 0.6, 0.8]), np.array([0.7, 0.4, 0.9])
    domain = {"acosh": (a + 1,), "remainder": (a + 2, b), "fmod": (a + 2, b)}
    return domain.get(name, (a, b)[: len(PARTIALS[name])])


@pytest.mark.parametrize("name", sorted(PARTIALS))
def test_every_partial_derivative_is_the_limit_of_differences(name):
    f, xs = RULES[name], points(name)
    g = lambda *z: xp.sum(getattr(xp, name)(*z) * np.array([1.0, -2.0, 0.5]))  # noqa: E731
    assert callable(f)
    for i in range(len(xs)):
        for h in (g, lambda *z, i=i: xp.sum(gradient(g, *z, argnums=i, backend="numpy") ** 2)):
            exact = gradient(h, *xs, argnums=i, backend="numpy")
            rough = gradient(h, *xs, argnums=i, backend="numpy", mode="finite_difference")
            assert exact == pytest.approx(rough, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize(
    ("f", "value", "expected"),
    [
        (np.abs, 0.0, 0.0),
        (lambda x: np.maximum(x, 0.0), 0.0, 0.5),
        (lambda x: np.clip(x, 0.0, 1.0), 1.0, 0.5),
        (lambda x: x**0, 0.0, 0.0),
        (lambda x: x**0.0, 0.0, 0.0),
        (lambda x: x**1.0, 0.0, 1.0),
        (lambda x: x**2, 0.0, 0.0),
        (lambda x: np.power(x, np.array(3.0)), -2.0, 12.0),
        (lambda x: np.power(0.0, x), 2.0, 0.0),
        (lambda x: np.where(x > 0, np.sqrt(np.where(x > 0, x, 1.0)), 3 * x), -1.0, 3.0),
        (lambda x: np.where(x > -2, 3 * x, np.sqrt(x + 1 - np.floor(x))), 1.0, 3.0),
        (lambda x: np.prod(np.stack([x, 2.0, 3.0])), 0.0, 6.0),
        (lambda x: np.prod(np.stack([x, 0.0, 3.0])), 0.0, 0.0),
        (lambda x: np.max(np.stack([x, 1.0])), 1.0, 0.5),
        (lambda x: x * stop_gradient(x), 3.0, 3.0),
        (lambda x: x * np.floor(x) + np.sign(x), 2.5, 2.0),
        (lambda x: 2 * x if x > 0 else -x, 1.0, 2.0),
        (lambda x: x % 0.1, 1.0, 1.0),
        (lambda x: 1.0 % x, 0.1, -9.0),
    ],
)
def test_kinks_and_zeros_have_the_stated_derivative(f, value, expected):
    assert gradient(f, np.array(value), backend="numpy") == pytest.approx(expected)


def test_a_branch_not_taken_may_be_infinite():
    with np.errstate(divide="ignore", invalid="ignore"):
        assert gradient(lambda x: np.where(x > 0, np.log(x), 2 * x), np.array(0.0), backend="numpy") == 2


def test_sinc_keeps_its_digits_near_zero_to_the_fourth_order():
    for x in (0.0, 1e-8, 1e-4, 0.29, 0.31):
        z = math.pi * x
        second = math.pi**2 * (-1 / 3 + z**2 / 10 - z**4 / 168 + z**6 / 6480 - z**8 / 443520 + z**10 / 47174400)
        fourth = math.pi**4 * (1 / 5 - z**2 / 14 + z**4 / 216 - z**6 / 7920 + z**8 / 524160)
        assert slopes(np.sinc, x, 2) == pytest.approx(second, rel=1e-8)
        assert slopes(np.sinc, x, 4) == pytest.approx(fourth, rel=1e-5)


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (np.tanh, lambda t: 16 * t - 136 * t**3 + 240 * t**5 - 120 * t**7 - 0 * t),
        (np.exp, None),
        (np.log1p, None),
        (np.arctan, None),
    ],
)
def test_the_fifth_derivative_is_exact(f, expected):
    x = 0.7
    t = math.tanh(x)
    exact = {
        np.tanh: 16 - 136 * t**2 + 240 * t**4 - 120 * t**6,
        np.exp: math.exp(x),
        np.log1p: 24 / (1 + x) ** 5,
        np.arctan: 24 * (5 * x**4 - 10 * x**2 + 1) / (1 + x**2) ** 5,
    }[f]
    assert slopes(f, x, 5) == pytest.approx(exact, rel=1e-12)


def test_equal_eigenvalues_have_derivatives_without_a_warning():
    assert jacobian(lambda x: np.linalg.eigvalsh(x)[0], np.eye(2), backend="numpy") == pytest.approx(
        np.diag([1.0, 0.0])
    )


@pytest.mark.parametrize("value", [np.float32(0.5), np.full(3, 0.5, np.float32)])
def test_single_precision_stays_single(value):
    x = np.asarray(value)
    constants = (2, 0.5, np.float32(3), np.ones(3, np.float32), True)
    for name in sorted(PARTIALS):
        n = len(PARTIALS[name])
        for args in (lambda z: (z,),) if n == 1 else (lambda z: (z, z), *(lambda z, c=c: (z, c) for c in constants)):
            if name in ("acosh", "logaddexp2", "fmod"):
                continue
            (y,), (dy,) = pushforwards(
                lambda z, name=name, args=args: (RULES[name](z._jet_level, *args(z)),), [x], [x[None]]
            )
            assert (y.dtype, dy.dtype) == (np.float32, np.float32), name


def test_a_tangent_has_the_dtype_of_its_value():
    x = np.ones(2, np.float32)
    (y,), (dy,) = pushforwards(lambda z: (z + np.ones(2),), [x], [x[None]])
    assert y.dtype == dy.dtype == np.float64


# What may not be lost.

OUT = np.zeros(3)


def written(x):
    out = np.zeros(3)
    out[0] = x[0]
    return out


def accumulated(x):
    out = np.zeros(3)
    out += x
    return out


def changed(x):
    x[0] = 1.0
    return x


def scattered(x):
    np.add.at(OUT, [0, 1], x[:2])
    return x


REFUSED = {
    "float": (lambda x: float(x[0]) * x, DetachError, "float"),
    "int": (lambda x: int(x[0]) * x, DetachError, "int"),
    "complex": (lambda x: complex(x[0]) * x, DetachError, "complex"),
    "index": (lambda x: [1.0, 2.0][x[0]] * x, DetachError, "index"),
    "item": (lambda x: x[0].item() * x, DetachError, "item"),
    "tolist": (lambda x: np.array(x.tolist()), DetachError, "tolist"),
    "asarray": (np.asarray, DetachError, "asarray"),
    "array of jets": (lambda x: np.array([x[0], x[1]]), DetachError, "asarray"),
    "sum of a list": (lambda x: np.sum([x[0], x[1]]), DetachError, "asarray"),
    "math": (lambda x: math.sin(x[0]) * x, DetachError, "math"),
    "float64": (lambda x: np.float64(x[0]) * x, DetachError, "asarray"),
    "vectorize": (lambda x: np.vectorize(lambda t: t * t)(x), DetachError, "asarray"),
    "out[i] = x": (written, DetachError, r"out\[i\] = x"),
    "out += x": (accumulated, UnsupportedError, r"out \+= x"),
    "x[i] = 1": (changed, UnsupportedError, "np.where"),
    "add.at": (scattered, UnsupportedError, "np.add.at"),
    "sort in place": (lambda x: x.sort(), UnsupportedError, "np.sort"),
    "view": (lambda x: x.view(), UnsupportedError, "x.view"),
    "out of a ufunc": (lambda x: np.tanh(x, out=OUT), UnsupportedError, r"np.tanh\(..., out"),
    "out by position": (lambda x: np.add(x, 1.0, OUT), UnsupportedError, r"np.add\(..., out"),
    "out of a function": (lambda x: np.cumsum(x, out=OUT), UnsupportedError, r"np.cumsum\(..., out"),
    "out of a method": (lambda x: x.sum(0, None, OUT[0]), UnsupportedError, r"np.sum\(..., out"),
    "where of a ufunc": (lambda x: np.exp(x, where=x > 0), UnsupportedError, r"np.exp\(..., where"),
    "where of a sum": (lambda x: np.sum(x, where=x > 0), UnsupportedError, r"np.sum\(..., where"),
    "apply_along_axis": (lambda x: np.apply_along_axis(np.sum, 0, x), UnsupportedError, "np.apply_along_axis"),
    "frompyfunc": (lambda x: np.frompyfunc(lambda t: t, 1, 1)(x), UnsupportedError, "ufunc"),
    "fft": (lambda x: np.fft.fft(x).real, UnsupportedError, "np.fft.fft"),
    "xp.fft": (lambda x: xp.fft.fft(x), UnsupportedError, "fft"),
    "accumulate": (np.add.accumulate, UnsupportedError, "np.add.accumulate"),
    "complex numbers": (lambda x: abs(x * 1j + 1), UnsupportedError, "complex"),
    "einsum lists": (lambda x: np.einsum(x, [0], [0]), UnsupportedError, "string"),
    "wide svd": (lambda x: np.linalg.svd(x[None])[0], UnsupportedError, "full_matrices=False"),
    "order F": (lambda x: x.reshape(3, 1, order="F"), UnsupportedError, "order='C'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_lose_a_derivative_raises_and_names_itself(case):
    f, error, words = REFUSED[case]
    with pytest.raises(error, match=words) as caught:
        jacobian(f, X, backend="numpy")
    assert any(cure in str(caught.value) for cure in ("Use ", "use ", "Write ", "type ", "Call ", "Build ", "takes "))


def test_a_ufunc_of_another_package_is_not_taken_for_numpys():
    special = pytest.importorskip("scipy.special")
    for f in (special.erf, special.expit, special.exp2):
        with pytest.raises(UnsupportedError, match=f.__name__):
            jacobian(f, X, backend="numpy")


def test_a_jet_is_no_json():
    with pytest.raises(TypeError, match="JSON"):
        jacobian(lambda x: json.dumps(x[0]), X, backend="numpy")


def test_an_error_inside_a_function_is_not_renamed():
    def f(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        jacobian(f, X, backend="numpy")


def test_looking_at_a_jet_is_allowed():
    def f(x):
        assert f"{x[0]:.1f}" == "0.3"
        assert "Jet" in repr(x)
        assert len(x) == x.size == 3
        assert not hasattr(x, "flat")
        assert not np.allclose(x, 0)
        assert (x.itemsize, x.nbytes, x.imag.sum()) == (8, 24, 0)
        return x * len([z for z in x if z > 0]) * np.argmax(x) * np.isfinite(x).all() * np.sum(x.astype(int))

    assert jacobian(f, X, backend="numpy") == pytest.approx(np.diag([4.0, 4.0, 4.0]))


def test_a_rule_for_every_function_that_the_jets_list_is_callable():
    assert all(callable(rule) for rule in RULES.values())
    assert set(PARTIALS) <= set(RULES)
    assert polyad.backends.get("numpy").namespace_of(polyad.jets.Jet).linalg.inv
