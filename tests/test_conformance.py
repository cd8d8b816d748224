"""Each documented example on each backend, and a suite that can fail."""

import ast
import inspect

import numpy as np
import pytest
from polyad_conformance import cases, reference, runner
from polyad_conformance.broken import DAMAGES, broken
from polyad_conformance.cases import CASES
from polyad_conformance.runner import run

from polyad import trees
from polyad.backends import get

BY_NAME = {case.name: case for case in CASES}
BATCHED = BY_NAME["batched_jacobian_in_loss"]


def by_name(case):
    return case.name


# Every backend conforms.


@pytest.mark.parametrize("dtype", runner.DTYPES)
@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_backend_agrees_with_the_reference_and_with_differences(case, backend, dtype):
    result = run(case, backend, dtype)
    assert result.failures == (), result.trace
    assert result.passed
    assert result.difference <= {"float64": 1e-10, "float32": 1e-4}[dtype]  # whatever the case itself allows
    assert (result.finite_differences is not None) == (dtype == "float64")


# The reference deserves its trust.


def test_reference_knows_nothing_of_polyad():
    nodes = ast.walk(ast.parse(inspect.getsource(reference)))
    modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    nodes = ast.walk(ast.parse(inspect.getsource(reference)))
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert modules == {"collections.abc", "typing", "numpy"}


def test_complex_step_of_a_sum_of_cubes_is_three_squares():
    x = np.array([[0.5, -1.0], [2.0, 1e-5]])
    value, (gradient,) = reference.complex_step(lambda x: (x * x * x).sum(), x)
    assert value == (x**3).sum()
    np.testing.assert_allclose(gradient, 3 * x**2, rtol=1e-15)


def columns(f, x):
    """Jacobian of f by complex steps, of shape (*f(x), *x)."""
    J = np.empty((*f(x).shape, *x.shape))
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1e-30j
        J[(..., *index)] = f(moved).imag / 1e-30
    return J


def test_hand_derived_jacobian_of_batch_norm_couples_the_rows():
    case = BY_NAME["jacobian_in_loss"]
    x, p = case.inputs["x"], case.parameters
    actual = reference.net_with_batch_norm_jacobian(x, p)
    assert actual.shape == (10, 2, 10, 2)
    assert np.abs(actual[0, :, 1]).max() > 1e-3
    np.testing.assert_allclose(actual, columns(lambda x: reference.net_with_batch_norm(x, p), x), atol=1e-14)


def test_hand_derived_slope_is_the_chain_rule():
    case = BY_NAME["gradient_in_loss"]
    t, p = case.inputs["t"], case.parameters
    expected = columns(lambda t: (reference.tanh_net(t, p)[0] ** 2).sum(), t)
    np.testing.assert_allclose(reference.slope_of_squares(t, p), expected, rtol=1e-13, atol=1e-14)


def test_hand_derived_batched_jacobian_is_the_diagonal_of_the_full_one():
    x, p = BATCHED.inputs["x"], BATCHED.parameters
    full = columns(lambda x: reference.tanh_net(x, p)[0], x)
    np.testing.assert_allclose(reference.two_layer_jacobian(x, p), np.einsum("iaib->iab", full), atol=1e-15)


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_no_number_is_too_small_for_an_error_to_show(case):
    for array in (*case.inputs.values(), *trees.leaves(case.parameters)):
        assert np.abs(array).min() > 0.05
        assert np.array_equal(array, array.astype(np.float32))  # both precisions see the same point
    for gradient in trees.leaves(case.expected[1]):
        assert np.abs(gradient).max() > 0.1


def test_numbers_are_drawn_once_and_for_all():
    assert cases.numbers("example", "x", (2,)).tolist() == cases.numbers("example", "x", (2,)).tolist()
    assert BATCHED.inputs["x"][0, 0] == -0.20186562836170197


# The suite can fail.


@pytest.fixture(params=["autograd", "torch"])
def stand_in(request, registry):
    """A function (damage) -> name of an adapter that stands in for a sound one, its inner derivatives included."""
    pytest.importorskip(request.param)
    sound = type(get(request.param))

    def register(damage):
        del registry._entries[request.param]  # an array has one owner, and it is the broken one
        registry.register_backend("broken", broken(sound, damage))
        return "broken"

    return register


def test_an_undamaged_stand_in_passes(stand_in):
    result = run(BATCHED, stand_in(lambda xs, gradients: gradients), "float64")
    assert result.passed, result


@pytest.mark.parametrize("damage", DAMAGES)
def test_broken_adapter_is_rejected(stand_in, damage):
    result = run(BATCHED, stand_in(DAMAGES[damage]), "float64")
    assert not result.passed
    assert result.failures


@pytest.mark.parametrize("case", CASES, ids=by_name)
def test_every_example_sees_an_inner_derivative_that_is_cut_off(stand_in, case):
    result = run(case, stand_in(DAMAGES["cut_off"]), "float32")
    assert any("differs from the reference" in failure for failure in result.failures)


def test_differences_alone_reject_a_halved_gradient(stand_in):
    blank = runner.Result(BATCHED.name, stand_in(DAMAGES["halved"]), "float64")
    result = runner.against_finite_differences(BATCHED, blank)
    assert result.failures
    assert "differs from central differences" in result.failures[0]


def test_a_gradient_that_is_zero_is_named(stand_in):
    result = run(BATCHED, stand_in(DAMAGES["forgets_the_first"]), "float64")
    assert "d/d params['layer_0']['bias'] is zero in every entry" in result.failures


def test_a_gradient_in_the_wrong_precision_is_named():
    one = np.ones(1)
    assert list(runner.malformed([one.astype(np.float32)], [one], ["d/d x"], "float64")) == [
        "d/d x is float32, not float64"
    ]


def test_an_exception_is_a_result_with_its_text(stand_in):
    result = run(BATCHED, stand_in(DAMAGES["raises"]), "float64")
    assert result.failures == ("RuntimeError: no rule for this operation",)
    assert "Traceback" in result.trace
    assert result.difference is None


def test_a_backend_that_is_not_installed_does_not_pass(registry):
    registry.register_backend("absent", "absent.adapter:Absent", module="absent", install="pip install absent")
    result = run(BATCHED, "absent", "float64")
    assert not result.passed
    assert "pip install absent" in result.failures[0]


def test_a_backend_of_another_package_is_a_name_like_any_other(registry):
    pytest.importorskip("autograd")
    sound = type(get("autograd"))
    registry.register_backend("theirs", broken(sound, lambda xs, gradients: gradients, name="theirs"))
    result = run(BATCHED, "theirs", "float64")
    assert result.passed, result


@pytest.mark.parametrize(
    ("actual", "expected", "difference", "worst"),
    [
        ([[1.0, 2.0]], [[1.0, 2.5]], 0.2, "a"),
        ([[1.0], [3.0]], [[1.0], [2.0]], 0.5, "b"),
        ([[1.0], [np.nan]], [[1.0], [2.0]], np.nan, "b"),
        ([[1.0, 2.0]], [[1.0]], np.inf, "a"),
        ([[0.0]], [[0.0]], np.inf, "a"),
    ],
)
def test_difference_is_relative_to_the_largest_entry_and_never_to_zero(actual, expected, difference, worst):
    found = runner.largest_difference(*([np.array(x) for x in side] for side in (actual, expected)), ["a", "b"])
    assert found == (pytest.approx(difference, nan_ok=True), worst)


def test_a_missing_gradient_is_an_infinite_difference():
    one = np.ones(1)
    assert runner.largest_difference([one], [one, one], ["a", "b"])[0] == np.inf
