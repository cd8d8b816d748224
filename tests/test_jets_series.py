"""Taylor series: every rule against nested derivatives and against mpmath."""

import math

import mpmath
import numpy as np
import pytest

from polyad import gradient, xp
from polyad.errors import ArgumentError
from polyad.jets import pushforwards, series
from tests.jet_cases import CASES, MISSING, PAIRS, A, close, made
from tests.test_jets_laplacians import FORMULAS

ORDER = 4


def coefficients(xs):
    random = np.random.Generator(np.random.Philox(5))
    return [0.3 * random.normal(size=(ORDER, *x.shape)) for x in xs]


def derivatives(curve, order):
    """y', ..., of this order, at t = 0, by pushing pushforwards: the witness."""
    one, zero = np.ones(1), np.array(0.0)
    found = []
    for _ in range(order):
        curve = (lambda f: lambda t: pushforwards(lambda s: (f(s),), [t], [one])[1][0][0])(curve)
        found.append(curve(zero))
    return found


@pytest.mark.parametrize(("name", "framework"), PAIRS)
def test_coefficients_are_derivatives_over_factorials(name, framework):
    if name in MISSING.get(framework, ()):
        pytest.skip(f"{framework} has no {name}")
    f, xs = CASES[name]
    cs, make = coefficients(xs), made(framework)
    along = lambda t: f(*(x + sum(c * t ** (j + 1) for j, c in enumerate(cx)) for x, cx in zip(xs, cs, strict=True)))  # noqa: E731
    given = [[make(c) for c in cx] for cx in cs]
    (y,), (found,) = series(lambda *z: (f(*z),), [make(x) for x in xs], given)
    close(y, along(0.0))
    for j, (c, derivative) in enumerate(zip(found, derivatives(along, ORDER), strict=True), start=1):
        close(math.factorial(j) * np.asarray(c), derivative, 1e-8)


@pytest.mark.parametrize("name", FORMULAS)
def test_series_of_functions_are_those_of_mpmath(name):
    (_,), (found,) = series(lambda z: (getattr(xp, name)(z),), [A], [(np.ones(3), *(None,) * 6)])
    with mpmath.workdps(40):
        for i, x in enumerate(A):
            expected = [float(c) for c in mpmath.taylor(FORMULAS[name], mpmath.mpf(float(x)), 7)[1:]]
            close([c[i] for c in found], expected, 1e-11)


def test_an_inverse_times_its_matrix_has_no_coefficients():
    random = np.random.Generator(np.random.Philox(6))
    x, cs = random.normal(size=(4, 4)) + 4 * np.eye(4), random.normal(size=(3, 4, 4))
    (y,), (found,) = series(lambda z: (xp.linalg.inv(z),), [x], [cs])
    for n in range(1, 4):
        product = sum((x, *cs)[j] @ (y, *found)[n - j] for j in range(n + 1))
        assert np.max(np.abs(product)) < 1e-12


def test_natural_powers_have_derivatives_at_zero():
    (_,), (found,) = series(lambda z: (z**3 + z**2,), [np.array(0.0)], [(np.array(1.0), None, None, None)])
    close(found, [0.0, 1.0, 1.0, 0.0])


def test_the_longest_coefficients_give_the_order():
    one = np.array(1.0)
    (_,), (found,) = series(lambda a, b: (a * b,), [2 * one, 3 * one], [(one,), (one, None, one)])
    close(found, [5.0, 1.0, 2.0])
    with pytest.raises(ArgumentError, match="coefficients"):
        series(lambda a: (a,), [one], [None])


def test_a_constant_result_has_zero_coefficients():
    (_,), (found,), (aux,) = series(lambda a: ((A,), (a,)), [A], [(A, None)], has_aux=True)
    assert [c.tolist() for c in found] == [[0.0] * 3] * 2
    assert isinstance(aux, np.ndarray)


@pytest.mark.parametrize("reverse", ["torch", "jax", "autograd"])
@pytest.mark.parametrize("f", [xp.tanh, xp.exp, xp.atan, lambda x: xp.sqrt(x) / (1 + x), lambda x: x**2.5])
def test_a_coefficient_has_the_right_gradient_in_reverse_mode(f, reverse):
    made(reverse)

    def loss(x):
        found = series(lambda z: (f(z),), [x], [(xp.ones_like(x), None, None)])[1][0]
        return xp.sum(xp.sin(found[2]))

    close(gradient(loss, A, backend=reverse), gradient(loss, A, backend="numpy", mode="forward"))


def test_a_branch_not_taken_may_be_infinite():
    with np.errstate(divide="ignore", invalid="ignore"):
        curve = [(np.ones(2), None)]
        found = series(lambda x: (xp.where(x > 0, xp.log(x), x**2),), [np.array([0.0, 2.0])], curve)[1][0]
    close(found[1], [1.0, -0.125])
