"""The examples at small size: what they claim in a minute must hold in a second."""

import functools
import importlib.util
import re
import sys
from pathlib import Path

import mpmath
import numpy as np
import pytest

import polyad
from polyad import StatefulLayer, trees, value_and_gradient, xp

pytest.importorskip("matplotlib")
pytest.importorskip("scipy")
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


# The others run from one source too; what they share is in training.py.

sys.modules["training"] = training = _load("training")
pinn, burgers, neural_ode = (_load(name) for name in ("pinn", "burgers", "neural_ode"))

ATTEMPTS = {
    "pinn second order": lambda backend, steps: pinn.solve("second order", backend, pinn.SMALL, steps),
    "pinn first order": lambda backend, steps: pinn.solve("first order", backend, pinn.SMALL, steps),
    "burgers": lambda backend, steps: burgers.solve(backend, burgers.SMALL, steps),
    "neural ode": lambda backend, steps: neural_ode.solve(backend, neural_ode.SMALL, steps, 0.05),
}


@pytest.fixture
def quickly(monkeypatch):
    """Without the seconds in which the error of the neural ODE is measured and drawn."""
    monkeypatch.setattr(neural_ode, "MANY", 4)
    monkeypatch.setattr(neural_ode, "COUNTS", (2, 4, 8, 16))


@functools.cache
def numpys(name):
    """The run that others are compared with."""
    return ATTEMPTS[name]("numpy", 3)


@pytest.mark.parametrize("name", ATTEMPTS)
def test_first_losses_are_those_of_numpy(backend, name, quickly):
    run, expected = ATTEMPTS[name](backend, 3), numpys(name)
    assert len(set(expected.losses)) == 3  # standing still agrees too
    assert training.differences([expected, run]).max() < training.AGREEMENT
    np.testing.assert_allclose(run.errors, expected.errors, rtol=1e-6)


def test_bfgs_finds_the_valley_of_rosenbrock(backend):
    def loss(params):
        x, y = params["x"], params["y"]
        return xp.sum((1 - x) ** 2 + 100 * (y - x**2) ** 2)

    start = {"x": np.array([-1.2, 0.5]), "y": np.array([1.0, 2.0])}
    optimiser = training.BFGS(polyad.convert(start, backend), backend)
    slope = value_and_gradient(loss)
    with polyad.use_backend(backend):
        losses = [optimiser.step(slope) for _ in range(80)]
    np.testing.assert_allclose(losses[0], sum(4.84 + 100 * 0.44**2 if x < 0 else 0.25 + 306.25 for x in start["x"]))
    for leaf in trees.leaves(polyad.convert(optimiser.params, "numpy")):
        np.testing.assert_allclose(leaf, 1, atol=1e-6)


def test_bfgs_has_the_inverse_hessian_of_a_quadratic_after_n_steps():
    random = np.random.default_rng(0)
    A = random.normal(size=(5, 5))
    A = A @ A.T + np.eye(5)
    optimiser = training.BFGS({"x": random.normal(size=5)}, "numpy")
    slope = value_and_gradient(lambda p: p["x"] @ (A @ p["x"]) / 2)
    for _ in range(25):
        optimiser.step(slope)
    H = np.triu(optimiser._inverse) + np.triu(optimiser._inverse, 1).T
    assert np.abs(optimiser.params["x"]).max() < 1e-6
    np.testing.assert_allclose(H @ A, np.eye(5), atol=0.2)


def test_adam_takes_the_steps_of_its_formula(backend):
    start = {"w": np.array([1.0, -2.0]), "b": np.array([0.5])}
    optimiser = training.Adam(polyad.convert(start, backend), rate=0.1, steps=4)
    slope = value_and_gradient(lambda p: xp.sum(p["w"] ** 4) + xp.sum(p["b"] ** 2))
    p, m, v = np.array([1.0, -2.0, 0.5]), 0, 0
    for k in range(3):
        g = np.concatenate([4 * p[:2] ** 3, 2 * p[2:]])
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        step = m / (1 - 0.9 ** (k + 1)) / (np.sqrt(v / (1 - 0.999 ** (k + 1))) + 1e-8)
        p = p - 0.1 * (1 - k / 4) * step
        with polyad.use_backend(backend):
            optimiser.step(slope)
    found = polyad.convert(optimiser.params, "numpy")
    np.testing.assert_allclose(np.concatenate([found["w"], found["b"]]), p, rtol=1e-12)


def test_pinn_residuals_are_zero_for_the_solution(backend):
    points = polyad.convert(np.random.default_rng(0).uniform(0, 2, (16, 3)), backend)

    def first(points):  # u_x = u_y
        s = points[:, :1] + points[:, 1:2]
        return xp.exp(s) * (xp.cos(s + 4 * points[:, 2:]) - xp.sin(s + 4 * points[:, 2:]))

    with polyad.use_backend(backend):
        second_form = pinn.heat(pinn.exact, points)
        first_form = pinn.heat_in_first_order(pinn.exact, first, first, points)
        wrong = pinn.heat(lambda p: pinn.exact(p) + p[:, :1] ** 2 + 3 * p[:, 2:], points)
    assert float(xp.max(xp.abs(second_form))) < 1e-11
    assert float(xp.max(xp.abs(first_form))) < 1e-11
    assert first_form.shape == (16, 3)
    np.testing.assert_allclose(polyad.convert(wrong, "numpy"), 1.0, rtol=1e-10)  # 3 - 2


def test_pinn_points_are_where_u_is_given():
    points = pinn.sides(64)
    at_edge = [(points[:, 2] == 0), *(points[:, axis] == value for axis in (0, 1) for value in (0, 2))]
    assert np.any(at_edge, axis=0).all()
    assert [hits.sum() for hits in at_edge] >= [12] * 5
    assert pinn.cube(64).min() > 0
    assert pinn.cube(64).max() < 2


def test_pinn_learns_in_both_forms():
    setting = pinn.Setting(hidden=10, layers=2, points=256, edge=256)
    for form in pinn.FORMS:
        run = pinn.solve(form, training.fastest(), setting, 200)
        assert run.errors[0, 1] > 0.9
        assert run.errors[-1, 1] < 0.05


def test_burgers_reference_is_that_of_mpmath_and_solves_the_equation():
    mp = mpmath.mp.clone()
    mp.dps = 30
    nu = mp.mpf(0.01) / mp.pi

    def exact(x, t):
        def weight(y):
            return mp.exp(-mp.cos(mp.pi * y) / (2 * mp.pi * nu) - (x - y) ** 2 / (4 * nu * t))

        cuts = [x + mp.mpf(k) / 8 for k in range(-20, 21)]
        return -mp.quad(lambda y: mp.sin(mp.pi * y) * weight(y), cuts) / mp.quad(weight, cuts)

    points = np.array([[-0.5, 0.1], [0.01, 0.5], [0.002, 1.0], [0.7, 1.0]])
    expected = [[float(exact(mp.mpf(x), mp.mpf(t)))] for x, t in points]
    np.testing.assert_allclose(burgers.reference(points), expected, rtol=1e-12)
    assert burgers.bound(points) < 1e-13
    h = 1e-4
    x, t = np.array([h, 0]), np.array([0, h])
    u = burgers.reference
    u_t, u_x = ((u(points + d) - u(points - d)) / (2 * h) for d in (t, x))
    u_xx = (u(points + x) - 2 * u(points) + u(points - x)) / h**2
    assert np.abs(u_t + u(points) * u_x - burgers.NU * u_xx).max() < 1e-3 * np.abs(u(points) * u_x).max()


def test_burgers_residual_is_that_of_a_formula(backend):
    points = np.random.default_rng(0).uniform(0.1, 1, (16, 2))
    x, t = points[:, :1], points[:, 1:]
    expected = np.sin(2 * x) + t * np.sin(2 * x) * 2 * t * np.cos(2 * x) + burgers.NU * 4 * t * np.sin(2 * x)
    with polyad.use_backend(backend):
        found = burgers.residual(lambda p: p[:, 1:] * xp.sin(2 * p[:, :1]), polyad.convert(points, backend))
    np.testing.assert_allclose(polyad.convert(found, "numpy"), expected, rtol=1e-11)


def test_burgers_has_the_given_values_whatever_the_parameters_are():
    u = (wave := burgers.Wave(burgers.SMALL, "numpy")).field(wave.params)
    x = np.linspace(-1, 1, 9)
    np.testing.assert_allclose(u(np.stack([x, 0 * x], axis=1))[:, 0], -np.sin(np.pi * x), atol=1e-15)
    for side in (-1.0, 1.0):
        assert np.abs(u(np.stack([0 * x + side, np.linspace(0, 1, 9)], axis=1))).max() < 1e-15


def test_burgers_new_points_are_where_the_equation_is_missed_more():
    setting = burgers.SMALL._replace(points=512, choice=4096)
    task, wave = burgers.problem("numpy", setting), burgers.Wave(setting, "numpy")
    (everything,) = burgers.problem("numpy", setting._replace(points=4096)).data(task.params, 0)
    points = everything, *(task.data(task.params, asked)[0] for asked in (0, 1))
    everywhere, even, chosen = (np.abs(wave.residual(task.params, p))[:, 0] for p in points)
    chance = everywhere / everywhere.mean() + 1
    assert chosen.mean() == pytest.approx(everywhere @ chance / chance.sum(), rel=0.03)
    assert chosen.mean() > 1.05 * even.mean()
    np.testing.assert_array_equal(task.data(task.params, 1)[0], task.data(task.params, 1)[0])


def test_neural_ode_solver_is_of_fourth_order():
    def wrong(steps):
        z, t = neural_ode.rk4(
            lambda t, now: (now[0] * np.cos(t), 2 * t * np.ones(1)), (np.ones(1), np.zeros(1)), steps
        )[-1]
        np.testing.assert_allclose(t, 1.0)
        return abs(z[0] - np.exp(np.sin(1)))

    assert 12 < wrong(8) / wrong(16) < 20


def test_neural_ode_acceleration_is_the_second_derivative_of_the_path(backend):
    flow = neural_ode.Flow(neural_ode.SMALL, backend)
    f = StatefulLayer(flow.model, flow.params, flow.state)
    z = polyad.convert(neural_ode.moons(16, 0), backend)
    h = 1e-3
    with polyad.use_backend(backend):
        ahead, back = (
            polyad.convert(f(xp.concat([z + s * h * v, xp.full_like(z[:, :1], 0.3 + s * h)], axis=1)), "numpy")
            for s in (1, -1)
            for v in [f(xp.concat([z, xp.full_like(z[:, :1], 0.3)], axis=1))]
        )
        _, divergence, acceleration = neural_ode.velocity_divergence_acceleration(f, z, 0.3)
        traces = polyad.divergence(lambda z: f(xp.concat([z, xp.full_like(z[:, :1], 0.3)], axis=1)), z)
    np.testing.assert_allclose(polyad.convert(acceleration, "numpy"), (ahead - back) / (2 * h), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(*polyad.convert((divergence, traces), "numpy"), rtol=1e-11)


def test_neural_ode_density_of_many_steps_integrates_to_one():
    flow = neural_ode.Flow(neural_ode.Setting(hidden=8), "numpy")
    params = trees.map(lambda p: 1.5 * p, flow.params)
    side, width = np.linspace(-8, 8, 81, retstep=True)
    points = np.stack([c.ravel() for c in np.meshgrid(side, side)], axis=1)
    log_p, bend = flow.log_density(params, points, 16)
    assert np.exp(log_p).sum() * width**2 == pytest.approx(1, abs=1e-3)
    assert bend.max() > 1e-2


def test_neural_ode_penalty_makes_few_steps_enough(monkeypatch):
    monkeypatch.setattr(neural_ode, "MANY", 16)
    setting, x = neural_ode.Setting(hidden=16, batch=64, solver=1), neural_ode.moons(200, 7)
    flow = neural_ode.Flow(setting, "numpy")

    def outcome(weight):
        params = neural_ode.solve(training.fastest(), setting, 500, weight).params
        return neural_ode.gap(flow, params, x, 1), -flow.log_density(params, x, 16)[0].mean()

    (wild, wild_truth), (tame, tame_truth) = outcome(0.0), outcome(0.05)
    assert tame < wild / 3
    assert tame_truth < wild_truth
    assert tame_truth < 2.5  # a normal distribution has 2.8


@pytest.mark.parametrize("example", [pinn, burgers, neural_ode], ids=["pinn", "burgers", "neural_ode"])
def test_an_example_runs_on_numpy_from_the_command_line_and_draws_its_picture(example, tmp_path, capsys, quickly):
    example.main(["--backend", "numpy", "--steps", "2", "--out", str(tmp_path / "new")])
    (picture,) = (tmp_path / "new").iterdir()
    assert picture.read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    assert "numpy has forward mode alone" in printed
    assert f"picture: {picture}" in printed


def test_backends_are_compared_before_the_fastest_trains(tmp_path, capsys, monkeypatch):
    pytest.importorskip("autograd")
    monkeypatch.setattr(training, "installed", lambda: ["numpy", "autograd"])  # the other two need seconds to compile
    monkeypatch.setattr(burgers, "draw", lambda *args: None)
    burgers.main(["--backend", "all", "--steps", "2", "--hidden", "4", "--points", "16", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert re.search(r"\nnumpy +2 .* reference .*\nautograd +2 .*e-1\d ", printed)
    assert "Burgers autograd" in printed
