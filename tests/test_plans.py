"""Plans: what the model of costs.json predicts, and that choosing costs no evaluation."""

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest

import polyad
from polyad import backends, batched_jacobian, convert, explain, gradient, jacobian, use_backend, xp
from polyad.costs import Situation, costs, data, factors, formula
from polyad.plans import choose, keeps, leanest
from tests.examples import arrays, compiled, difference, host

MEASUREMENTS = Path(__file__).parent.parent / "benchmarks" / "measurements"

# (inputs, outputs, batch) of a Jacobian row by row in a loss, and the pass that is up to 7 times faster there.
TABLE = [((3, 3, 1024), "reverse"), ((2, 16, 1024), "forward"), ((32, 4, 256), "reverse")]


@pytest.mark.parametrize(("shape", "best"), TABLE)
@pytest.mark.parametrize(("name", "is_compiled"), [("torch", False), ("autograd", False), ("jax", True)])
def test_the_table_of_jacobians_gets_its_best_pass(name, is_compiled, shape, best):
    pytest.importorskip(name)
    inputs, outputs, batch = shape
    plan = choose(backends.get(name), "auto", inputs, outputs, batch, is_compiled, nested=True)
    if name == "torch" and inputs == outputs:
        best = "forward"  # columns by jets are as many there, and a few per cent faster
    assert plan.mode == best
    assert plan.costs[0].mode == best
    assert plan.costs[-1].passes > 3 * plan.costs[0].passes or shape == (3, 3, 1024)


def test_directions_of_large_problems_go_one_by_one_on_compiled_jax():
    """Batched, each of 3 takes more than twice as long there: XLA on a CPU multiplies stacks of matrices slowly."""
    jax = pytest.importorskip("jax")
    adapter = backends.get("jax")
    assert choose(adapter, "auto", 3, 3, 1024, compiled=True, nested=True).at_once == 1
    assert choose(adapter, "auto", 3, 3, 16, compiled=True, nested=True).at_once is None
    w = np.random.Generator(np.random.Philox(0)).normal(size=(3, 64))

    def loss(x):
        return xp.sum(batched_jacobian(lambda x: xp.tanh(x @ w) @ w.T, x) ** 2)

    text = str(jax.make_jaxpr(jax.grad(loss))(np.ones((1024, 3))))
    assert "f64[1024,3]" in text
    assert "f64[3,1024,64]" not in text


@pytest.mark.parametrize("stem", ["torch", "autograd", "jax-compiled", "jax"])
@pytest.mark.parametrize("where", ["alone", "nested"])
def test_what_is_predicted_to_be_best_is_close_to_the_best_that_was_measured(stem, where):
    points = json.loads((MEASUREMENTS / f"{stem}.json").read_text())["points"]
    name, _, is_compiled = stem.partition("-")
    situation = Situation(bool(is_compiled), where == "nested")
    losses = []
    for point, found in points.items():
        inputs, outputs, batch, *_ = map(int, point.split("x"))
        measured = {
            tuple(key.split("/")[1:3]): passes
            for key, passes in found["passes"].items()
            if key.startswith(where) and key.endswith("taped")
        }
        best = costs(name, situation, inputs, outputs, batch * max(inputs, outputs))[0]
        chosen = measured[best.mode, "loop" if best.batching == "alone" else best.batching]
        losses.append(chosen / min(measured.values()))
    assert len(losses) >= 24
    assert statistics.geometric_mean(losses) < 1.06
    assert max(losses) < 1.4


def test_the_formula_is_calls_and_work_of_a_value_and_of_directions():
    row = {"coefficients": (2.0, 3.0, 5.0, 7.0)}
    assert formula(row, 0.0, sweeps=4, directions=9) == 2 + 4 * 5
    assert formula(row, 3.0, sweeps=1, directions=9) == (2 + 9 + 5 + 9 * 7 * 3) / 4
    assert math.isclose(formula(row, 1e12, sweeps=4, directions=9), 3 + 9 * 7, rel_tol=1e-9)


def test_the_data_say_what_was_measured_when_and_how_well_it_fits():
    found = data()
    assert (found["schema"], found["threads"]) == (1, 1)
    assert len(found["date"].split("-")) == 3
    assert found["cpu"]
    assert set(found["versions"]) == set(found["backends"]) == {"torch", "jax", "autograd"}
    for name, situations in found["backends"].items():
        for situation, table in situations.items():
            assert situation in [Situation(c, n).name for c in (False, True) for n in (False, True)], name
            assert table["even"] > 0
            assert {row["mode"] for row in table["passes"]} == {"forward", "reverse"}
            for row in table["passes"]:
                assert row["batching"] in ("loop", "together")
                assert len(row["coefficients"]) == 4
                assert min(row["coefficients"]) > 0
                assert row["points"] > 0
                assert row["residual"] > 0
            held_out = table["quality"]["held out"]
            assert held_out["within 10 %"] >= 0.8
            assert held_out["mean loss"] <= 1.08


def test_costs_grow_with_directions_and_fall_to_one_formula_for_one():
    situation = Situation()
    few, many = costs("torch", situation, 4, 4, 4096), costs("torch", situation, 4, 40, 4096)
    for batching in ("loop", "together"):
        cost = {size: {(c.mode, c.batching): c.passes for c in found} for size, found in (("few", few), ("many", many))}
        assert cost["many"]["reverse", batching] > 3 * cost["few"]["reverse", batching]
        assert cost["many"]["forward", batching] == cost["few"]["forward", batching]
    assert [c.batching for c in costs("torch", situation, 1, 1, 64)] == ["alone", "alone"]
    assert costs("theirs", situation, 3, 3, 64) == ()


def test_an_adapter_that_was_not_measured_has_a_neutral_rule(registry):
    from polyad.backends.autograd import Autograd

    class Theirs(Autograd):
        name = "theirs"

    registry.register_backend("theirs", Theirs)
    theirs = registry.get("theirs")
    assert [choose(theirs, "auto", columns, rows).mode for columns, rows in ((3, 6), (3, 7))] == ["reverse", "forward"]
    assert choose(theirs, "auto", 3, 7).costs == ()
    assert choose(theirs, "auto", 3, 7).at_once is None
    assert keeps(theirs, "reverse", False) is None
    assert str(explain(jacobian, lambda x: x**2, np.ones(3), backend="theirs")).count("\n") == 0


def test_one_row_is_a_reverse_pass_whatever_it_costs(backend):
    adapter = backends.get(backend)
    for columns in (1, 2, 1000):
        assert choose(adapter, "auto", columns, 1).mode == adapter.modes[0]


def test_explain_prints_what_every_candidate_is_predicted_to_cost(capsys):
    pytest.importorskip("torch")
    x = convert(np.ones((1024, 3)), "torch")

    def loss(x):
        return xp.sum(batched_jacobian(lambda x: xp.sin(x) * 2.0, x) ** 2)

    plan = explain(gradient, loss, x).steps[0].inner[0].plan
    assert [cost.passes for cost in plan.costs] == sorted(cost.passes for cost in plan.costs)
    assert {(cost.mode, cost.batching) for cost in plan.costs} == {
        *(("reverse", "loop"), ("reverse", "together"), ("forward", "loop"), ("forward", "together"))
    }
    printed = capsys.readouterr().out
    version, month = data()["versions"]["torch"], data()["date"][:7]
    best = plan.costs[0]
    assert f"predicted in forward passes: {best}, " in printed
    assert f"(torch {version}, {data()['cpu']}, {month})" in printed
    assert str(best) == f"{best.mode} {'one by one' if best.batching == 'loop' else 'together'} {best.passes:.3g}"


def test_choosing_evaluates_nothing(backend):
    """One evaluation for rows; where columns are cheaper, a second one only if the first had to tell how many rows."""
    calls = []

    def wide(x):
        calls.append(1)
        return xp.concat([xp.sin(x)] * 40)

    def narrow(x):
        calls.append(1)
        return xp.sum(xp.sin(x))[None]

    x = convert(np.linspace(0.1, 1.0, 3), backend)
    shapes_for_free = backends.get(backend).output_shapes(lambda x: (x,), (x,)) is not None  # by a trace of f
    for f, most in ((narrow, 1), (wide, 2 if backend == "torch" else 3 if backend == "jax" else 4)):
        calls.clear()
        found = jacobian(f, x, backend=backend)
        assert len(calls) <= most + shapes_for_free
        if f is narrow:
            np.testing.assert_allclose(np.asarray(convert(found, "numpy"))[0], np.cos(np.linspace(0.1, 1.0, 3)))


@pytest.mark.parametrize("at_once", [None, 1])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_every_plan_gives_the_same_jacobian(backend, mode, at_once, monkeypatch):
    """J of x_i -> sum_j w_ij sin x_j is w_ij cos x_j, and the gradient of the sum of squares is known too."""
    adapter = backends.get(backend)
    if mode not in adapter.modes:
        mode = "forward"
    w = np.random.Generator(np.random.Philox(1)).normal(size=(5, 3))
    x = np.linspace(0.2, 1.4, 3)
    real = polyad.operators.passes.choose

    def forced(*args):
        from dataclasses import replace

        asked = list(args)
        asked[1] = mode if args[3] != 1 else args[1]
        return replace(real(*asked), at_once=at_once)

    monkeypatch.setattr(polyad.operators.passes, "choose", forced)

    def loss(x):
        return xp.sum(jacobian(lambda x: xp.sum(convert(w, backend) * xp.sin(x), axis=1), x) ** 2)

    found = compiled(backend, lambda x: gradient(loss, x, backend=backend))(convert(x, backend))
    expected = -(w**2).sum(axis=0) * 2 * np.cos(x) * np.sin(x)
    np.testing.assert_allclose(np.asarray(convert(found, "numpy")), expected, rtol=1e-12)


def test_of_strategies_that_keep_inputs_alone_one_is_taken_where_it_is_as_fast():
    assert leanest({"taped": 1.0, "recompute": 1.04, "forward_over_reverse": 1.2}, 1.05) == "recompute"
    assert leanest({"taped": 1.0, "recompute": 1.2, "forward_over_reverse": 0.9}, 1.05) == "forward_over_reverse"
    assert leanest({"taped": 1.0, "recompute": 1.1, "forward_over_reverse": 1.2}, 1.05) == "taped"
    assert leanest({"taped": 1.0}, 1.05) == "taped"


def test_strategies_follow_what_was_measured():
    assert keeps(backends.get("torch"), "gradient", False)[0] == "taped"
    assert factors("torch", False, "gradient")["recompute"] > 1.5
    assert keeps(backends.get("jax"), "gradient", True)[0] == "recompute"
    for mode in ("gradient", "reverse", "forward", "auto"):  # in a scan what is kept is kept for each step
        assert keeps(backends.get("jax"), mode, True, True)[0] == "recompute"


def test_the_body_of_a_loop_is_seen_on_jax():
    jax = pytest.importorskip("jax")
    adapter, seen = backends.get("jax"), {}

    def look(name):
        def f(x, *_):
            seen[name] = adapter.compiles_here(), adapter.loops_here(), adapter.differentiates_here(())
            return x * 2.0

        return f

    look("eager")(1.0)
    jax.grad(look("grad"))(1.0)
    jax.jit(look("jit"))(1.0)
    jax.jit(jax.grad(look("jit grad")))(1.0)
    jax.lax.scan(lambda x, _: (look("scan")(x), None), 1.0, None, length=2)
    jax.jit(lambda x: jax.lax.fori_loop(0, 2, lambda i, x: look("fori")(x), x))(1.0)
    assert seen == {
        "eager": (False, False, False),
        "grad": (False, False, True),
        "jit": (True, False, False),
        "jit grad": (True, False, True),
        "scan": (True, True, False),
        "fori": (True, True, False),
    }


@pytest.mark.parametrize("name", ["torch", "autograd"])
def test_a_function_with_other_outputs_than_last_time_is_differentiated_right(name):
    pytest.importorskip(name)
    x, w = arrays(name, np.linspace(-1.0, 1.0, 6).reshape(3, 2), np.linspace(-2.0, 2.0, 80).reshape(2, 40))

    def f(x):
        return xp.sin(x @ w[:, :n])

    for n in (40, 1, 40, 3, 3):
        found = batched_jacobian(f, x, backend=name)
        v = host(w)[0][:, :n]
        assert difference(found, np.cos(host(x)[0] @ v)[:, :, None] * v.T) < 1e-12


def test_a_net_whose_outputs_are_known_is_evaluated_by_columns_at_once():
    pytest.importorskip("autograd")
    calls = []

    def f(x):
        calls.append(1)
        return xp.sin(x @ np.ones((1, 40)))

    for _ in range(2):
        with use_backend("autograd"):
            batched_jacobian(f, np.ones((3, 1)))
        calls.append(0)
    first, second = (len(part) for part in "".join(map(str, calls)).split("0")[:2])
    assert second < first
