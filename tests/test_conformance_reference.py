"""The witnesses deserve their trust: formulas by hand, and complex steps through them."""

import ast
import inspect

import numpy as np
import pytest
from polyad_conformance import examples, reference, reference_fields
from polyad_conformance.defects import DEFECTS

from polyad import trees

BY_NUMBER = {case.name[0]: case for case in examples.CASES}


@pytest.mark.parametrize("module", [reference, reference_fields])
def test_a_reference_knows_nothing_of_polyad(module):
    nodes = list(ast.walk(ast.parse(inspect.getsource(module))))
    found = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    found |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert found <= {"collections.abc", "typing", "numpy", "reference"}


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


def of_example(number):
    _, params, *inputs = BY_NUMBER[number].inputs
    return params["net"], *inputs


def test_hand_derived_jacobian_of_batch_norm_couples_the_rows():
    p, x, _ = of_example("1")
    actual = reference.net_with_batch_norm_jacobian(x, p)
    assert actual.shape == (10, 2, 10, 2)
    assert np.abs(actual[0, :, 1]).max() > 1e-3
    np.testing.assert_allclose(actual, columns(lambda x: reference.net_with_batch_norm(x, p), x), atol=1e-14)


def test_hand_derived_slope_is_the_chain_rule():
    p, t = of_example("2")
    expected = columns(lambda t: (reference.tanh_net(t, p)[0] ** 2).sum(), t)
    np.testing.assert_allclose(reference.slope_of_squares(t, p), expected, rtol=1e-13, atol=1e-14)


def test_hand_derived_batched_jacobian_is_the_diagonal_of_the_full_one():
    p, x, _ = of_example("3")
    full = columns(lambda x: reference.tanh_net(x, p)[0], x)
    np.testing.assert_allclose(reference.two_layer_jacobian(x, p), np.einsum("iaib->iab", full), atol=1e-15)


def test_squares_of_the_jacobian_in_the_parameters_are_those_of_complex_steps():
    p, t = of_example("4")
    total = 0.0
    for key, layer in p.items():
        for name, leaf in layer.items():
            J = columns(lambda w, k=key, n=name: reference.tanh_net(t, {**p, k: {**p[k], n: w}})[0], leaf)
            total += np.sum(J**2)
    assert reference_fields.parameter_jacobian_loss(p, t) == pytest.approx(total, rel=1e-13)


def test_trace_is_that_of_the_full_jacobian():
    p, x, v = of_example("5")
    J = columns(lambda x: reference.tanh_net(x, p)[0], x)
    assert reference_fields.trace(p, x, v) == pytest.approx(np.einsum("ia,iajb,jb->", v, J, v), rel=1e-13)
    assert set(np.unique(v)) == {-1.0, 1.0}


def test_jet_of_the_net_is_its_value_jacobian_and_laplacian():
    _, params, points = BY_NUMBER["6"].inputs if len(BY_NUMBER["6"].inputs) == 3 else examples.CASES[-1].inputs
    p = params["u"]
    u, du, bend = reference_fields.jet(p, points)
    net = lambda x: reference.tanh_net(x, p)[0][:, 0]  # noqa: E731
    np.testing.assert_allclose(u, net(points), rtol=1e-14)
    np.testing.assert_allclose(du, np.einsum("iik->ik", columns(net, points)), atol=1e-14)
    second = columns(lambda x: _slopes(net, x), points)  # the rows are independent
    np.testing.assert_allclose(bend, np.einsum("ikik->ik", second)[:, :2].sum(axis=1), rtol=1e-7)


def _slopes(net, x):
    """d net / dx by rows, analytic: central differences with a step that complex steps go through."""
    h = 1e-4
    out = []
    for k in range(x.shape[1]):
        e = np.zeros(x.shape[1])
        e[k] = h
        far = (net(x + 2 * e) - net(x - 2 * e)) / (4 * h)
        out.append((4 * (net(x + e) - net(x - e)) / (2 * h) - far) / 3)
    return np.stack(out, axis=1)


def test_source_of_the_heat_equation_is_zero_for_the_closed_form():
    h, points = 1e-4, examples.POINTS

    def second(k):
        e = np.eye(3)[k] * h
        near = reference_fields.exact(points + e) - 2 * reference_fields.exact(points)
        return (near + reference_fields.exact(points - e)) / h**2

    e = np.array([0, 0, h])
    rate = (reference_fields.exact(points + e) - reference_fields.exact(points - e)) / (2 * h)
    scale = np.abs(rate).max()
    assert scale > 1
    np.testing.assert_allclose(rate - second(0) - second(1), 0, atol=1e-6 * scale)
    assert points.min() >= 0
    assert points.max() <= 2


@pytest.mark.parametrize("case", examples.CASES, ids=lambda case: case.name)
def test_no_number_is_too_small_for_an_error_to_show(case):
    for array in trees.leaves(case.inputs[-2:]):
        assert np.abs(array).min() > 0.01
    sizes = [np.abs(gradient).max() for gradient in trees.leaves(case.answer[1])]
    assert sum(size == 0 for size in sizes) <= 1  # the last bias, of which a Jacobian knows nothing
    assert min(size for size in sizes if size) > 0.05


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: f"{defect.framework}: {defect.what}")
def test_a_defect_of_a_framework_still_reproduces(defect):
    pytest.importorskip(defect.framework)
    found, right = defect.reproduce()
    assert found.shape == right.shape
    assert not np.allclose(found, right, rtol=1e-3, atol=0)
    assert defect.instead
