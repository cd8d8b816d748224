"""The examples at small size: what they claim in a minute must hold in a second."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

import polyad

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

EXAMPLES = Path(__file__).parent.parent / "examples"


def _load(name):
    spec = importlib.util.spec_from_file_location(f"polyad_example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


digits = _load("digits")
SMALL = digits.Setting(hidden=3, batch=8, rate=0.5, weight=0.05)


@pytest.fixture(scope="module")
def data():
    return digits.digits(training=200)


@pytest.fixture(scope="module")
def reference(data):
    return digits.train("numpy", data, SMALL, steps=4)


def test_digits_reference_moves_every_parameter(reference):
    start, _ = polyad.setup(0, digits.classifier(3), backend="numpy", dtype="float64")  # standing still agrees too
    for layer, leaves in reference.params.items():
        for leaf, value in leaves.items():
            assert np.abs(value - start[layer][leaf]).max() > 1e-3, (layer, leaf)


def test_digits_losses_and_parameters_are_those_of_numpy(backend, data, reference):
    run = digits.train(backend, data, SMALL, steps=4)
    assert digits.differences([reference, run]).max() < digits.AGREEMENT
    for layer, leaves in reference.params.items():
        for leaf, expected in leaves.items():
            np.testing.assert_allclose(run.params[layer][leaf], expected, rtol=1e-9, atol=1e-12)


def test_digits_loss_is_cross_entropy_plus_the_weighted_square_of_the_jacobian(backend, data):
    model = digits.classifier(3)
    params, state = polyad.setup(0, model, backend="numpy", dtype="float64")
    x, y = digits.batch(data, 8, step=0)
    (W, b), (V, c) = ((params[key]["weight"], params[key]["bias"]) for key in ("layer_0", "layer_1"))
    h = np.tanh(x @ W + b)
    J = np.einsum("hc,bh,ph->bcp", V, 1 - h**2, W)
    z = h @ V + c
    expected = np.mean(np.log(np.exp(z).sum(1)) - (y * z).sum(1)) + 0.7 * np.mean((J**2).sum((1, 2)))
    with polyad.use_backend(backend):
        value = digits.objective(model, state, 0.7)(*polyad.convert((params, x, y), backend))
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_digits_gradient_of_the_loss_is_that_of_finite_differences(data):
    model = digits.classifier(2)
    params, state = polyad.setup(0, model, backend="numpy", dtype="float64")
    polyad.check_gradients(digits.objective(model, state, 0.7), params, *digits.batch(data, 8, step=0))


def test_digits_penalty_makes_noise_move_the_logits_less_and_still_learns(backend, data):
    def moved(weight):
        run = digits.train(backend, data, digits.Setting(4, 20, 0.5, weight), steps=60)
        return digits.effect(run.params, data, 4, levels=(0.0, 0.3), draws=2)

    without, penalised = moved(0.0), moved(0.01)
    assert without.logits[0] == without.decisions[0] == 0.0  # no noise, no change
    assert penalised.logits[1] < 0.75 * without.logits[1]
    assert penalised.accuracy[0] > 0.5  # one in ten by chance
    assert penalised.accuracy[0] > without.accuracy[0] - 0.1


def test_digits_batches_are_the_same_whatever_was_drawn_before(data):
    x, _ = digits.batch(data, 8, step=3)
    digits.batch(data, 8, step=2)
    np.testing.assert_array_equal(digits.batch(data, 8, step=3)[0], x)
    assert not np.array_equal(digits.batch(data, 8, step=4)[0], x)


def test_digits_holds_out_images_that_no_training_set_contains(data):
    everything = digits.digits()
    assert len(everything.x) + len(everything.x_test) == 1797
    np.testing.assert_array_equal(everything.x[:200], data.x)
    np.testing.assert_array_equal(everything.x_test, data.x_test)


def test_digits_runs_from_the_command_line_and_draws_its_picture(tmp_path, capsys):
    out = tmp_path / "new" / "digits.png"
    small = "--steps 2 --long 3 --seeds 1 --hidden 2 --wide 2 --batch 4"
    digits.main([*small.split(), "--backend", "autograd", "--out", str(out)])
    assert out.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "reference" in printed
    assert "accuracy under noise, noise 0.3" in printed


def test_digits_leaves_out_the_trial_that_would_take_an_hour(tmp_path, capsys):
    small = "--steps 1 --long 1000000000 --hidden 2 --batch 4"
    digits.main([*small.split(), "--backend", "numpy", "--out", str(tmp_path / "digits.png")])
    assert "no trial with noise" in capsys.readouterr().out
    assert (tmp_path / "digits.png").exists()
