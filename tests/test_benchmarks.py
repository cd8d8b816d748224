"""Benchmarks: the ways agree, and what is said of their times follows from them. Nothing here is timed."""

import dataclasses
import importlib.util
import json
import math

import numpy as np
import pytest
from polyad_benchmarks import measure, memory, plots, quantities, runner, table
from polyad_benchmarks.measure import UNKNOWN, Ratio, Spread
from polyad_benchmarks.problem import Problem, Size, plain
from polyad_benchmarks.report import Report
from polyad_benchmarks.row import Candidate, Row, arrays, difference, measured
from polyad_benchmarks.ways import Absent, Way, framework
from polyad_benchmarks.workload import GROUPS, WORKLOADS, select

from polyad.cli import main


def small(workload):
    """The same derivative of a network that is differentiated at once, in float64."""
    size = workload.size
    inputs = min(size.inputs, 3)
    outputs = inputs if workload.group == "trace" or "trace" in workload.quantity else min(size.outputs, 2)
    size = Size(inputs, outputs, batch=min(size.batch, 4), width=5, depth=2, steps=2)
    return dataclasses.replace(workload, size=size, dtype="float64", budget=0.0)


def once(workloads):
    """Those that differ in more than their size."""
    found = {(w.quantity, w.nested, w.coupled): w for w in map(small, workloads)}
    return [pytest.param(w, id=f"{w.name}{' coupled' * w.coupled}") for w in found.values()]


LIBRARIES = [name for name in ("deepxde", "folx") if importlib.util.find_spec(name) is None]
"""Those that are not installed here; without them the other ways are compared all the same."""

EAGER = [w for w in WORKLOADS if not w.compiled]


def agreed(workload):
    expected = arrays(workload.polyad()())
    assert all(np.all(np.isfinite(leaf)) for leaf in expected)
    assert max(np.max(np.abs(leaf)) for leaf in expected) > 1e-4
    ways = workload.ways()
    assert ways
    for name, (way, build) in ways.items():
        try:
            found = build()()
        except Absent:
            assert LIBRARIES, name
            assert way.tag == "library", name
            continue
        gap = difference(arrays(found), expected)
        assert gap <= (1e-6 if "differences" in name else 1e-9), name


@pytest.mark.parametrize("workload", once(w for w in EAGER if w.backend == "numpy"))
def test_every_way_of_numpy_agrees_with_polyad(workload):
    agreed(workload)


@pytest.mark.parametrize("workload", once(w for w in EAGER if w.backend == "autograd"))
def test_every_way_of_autograd_agrees_with_polyad(workload):
    pytest.importorskip("autograd")
    agreed(workload)


@pytest.mark.parametrize("workload", once(w for w in EAGER if w.backend == "torch"))
@pytest.mark.filterwarnings("ignore")  # of torch.func, DeepXDE and checkpoint, about themselves
def test_every_way_of_torch_agrees_with_polyad(workload, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("DDE_BACKEND", "pytorch")
    agreed(workload)


@pytest.mark.parametrize("workload", once(w for w in WORKLOADS if w.backend == "jax" and w.nested))
def test_every_way_of_jax_agrees_with_polyad(workload):
    """All are compiled at once and not optimized, which takes a tenth of the time."""
    jax = pytest.importorskip("jax")
    made = framework(Problem("jax", workload.size, "float64", workload.coupled, workload.nested), compiled=True)
    ours = quantities.call(made.problem, workload.quantity)
    steps = {w.name: f for w, f in made.steps(workload.quantity).items() if w.name.split(",")[0] not in LIBRARIES}
    found = jax.jit(
        lambda params, layers, x: (ours(params, x), {name: step(layers, x) for name, step in steps.items()}),
        compiler_options={"xla_backend_optimization_level": 0},
    )(made.problem.params, made.layers, made.x)
    expected = arrays(found[0])
    assert max(np.max(np.abs(leaf)) for leaf in expected) > 1e-4
    assert found[1]
    for name, gradient in found[1].items():
        assert difference(arrays(list(jax.tree.leaves(gradient))), expected) <= 1e-9, name


# Rows.


@pytest.fixture
def soon(monkeypatch):
    """A sample may be as short as it is."""
    monkeypatch.setattr(measure, "SHORTEST", 0.0)


class Stub:
    """A Workload whose competitors say what they are told to."""

    group, name, backend, compiled, dtype, budget = "group", "name", "numpy", False, "float64", 0.0

    def __init__(self, **ways):
        self.given = ways

    def forward(self):
        return lambda: np.ones(3)

    def polyad(self):
        return lambda: np.array([1.0, 2.0])

    def ways(self):
        return {name: (way_of(name), lambda run=run: run) for name, run in self.given.items()}

    def peak(self, call):
        return memory.traced(call)


def way_of(name):
    tag = "usual" if name == "often" else "formula" if name == "formula" else "by hand"
    return Way(name, None, tag, False, lambda problem: True, False)


def right():
    return np.array([1.0, 2.0])


def slowly():
    for _ in range(200):
        found = right()
    return found


def test_a_way_that_disagrees_or_raises_is_a_problem_and_is_not_timed(soon):
    def refuses():
        raise ValueError("no rule\nof this")

    row = measured(
        Stub(right=right, halved=lambda: right() / 2, shaped=lambda: right()[:1], refuses=refuses), 4, memory=False
    )
    assert [candidate.name for candidate in row.candidates] == ["right"]
    halved, shaped, refused = row.problems
    assert halved == "halved: differs from polyad by 5.0e-01"
    assert shaped == "shaped: differs from polyad by inf"
    assert refused == "refuses: ValueError: no rule"


def test_a_library_that_is_not_there_is_absent_and_no_problem(soon):
    def builds():
        raise Absent("folx")

    stub = Stub(right=right)
    ways = stub.ways() | {"folx": (way_of("folx"), builds)}
    stub.ways = lambda: ways
    row = measured(stub, 4, memory=False)
    assert row.absent == ("folx",)
    assert not row.problems


def test_the_best_is_of_all_ways_and_the_usual_one_of_its_tag(soon):
    row = measured(Stub(often=slowly, formula=right), 4, memory=False)
    assert (row.best, row.general, row.usual) == ("formula", "often", "often")
    assert row.by_usual.median > 10 > row.by_best.median
    assert row.by_general.median == pytest.approx(1 / row.by_usual.median, rel=0.5)


def test_polyad_that_raises_is_a_problem(soon):
    stub = Stub(right=right)
    stub.polyad = lambda: 1 / 0
    assert measured(stub, 4, memory=False).problems == ("polyad: ZeroDivisionError: division by zero",)


def test_difference_is_that_of_the_worst_leaf():
    expected = [np.array([3.0, 4.0]), np.array([1.0])]
    assert difference([np.array([3.0, 4.0]), np.array([1.1])], expected) == pytest.approx(0.1)
    assert difference(expected, expected) == 0
    assert difference([np.array([np.nan, 4.0]), np.array([1.0])], expected) == math.inf
    assert difference(expected[:1], expected) == math.inf


# Statistics.


def test_spread_is_median_and_quartiles():
    assert measure.spread([4.0, 1.0, 3.0, 2.0, 5.0]) == Spread(3.0, 1.5, 4.5, 5)
    assert measure.spread([2.0]) == Spread(2.0, 2.0, 2.0, 1)


def test_ratio_is_the_median_of_rounds_so_that_a_slow_moment_of_both_cancels():
    assert measure.ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == Ratio(2.0, 2.0, 2.0, 3)
    assert measure.ratio([], []) == UNKNOWN
    assert UNKNOWN.half_width == math.inf


@pytest.mark.parametrize("rounds", [6, 15, 40, 100])
def test_the_interval_of_a_ratio_holds_its_median_in_19_of_20_samples(rounds):
    """Of exponential ratios, whose median is log 2: a distribution as skew as times are."""
    draw = np.random.Generator(np.random.Philox(rounds))
    found = [measure.ratio(draw.exponential(size=rounds), np.ones(rounds)) for _ in range(2000)]
    held = np.mean([ratio.low <= math.log(2) <= ratio.high for ratio in found])
    assert 0.94 < held < 0.995  # it is a little too wide
    assert all(ratio.low <= ratio.median <= ratio.high for ratio in found)


def test_final_rounds_go_on_until_the_ratio_is_known(soon, monkeypatch):
    taken = {"a": 2.0, "b": 1.0, "noisy": 1.0}
    draw = np.random.Generator(np.random.Philox(3))

    def seconds(call, repeats=1, clock=None):
        name = call()
        return taken[name] * (draw.uniform(0.5, 1.5) if name == "noisy" else 1.0)

    monkeypatch.setattr(measure, "seconds", seconds)
    calls = {name: lambda name=name: name for name in taken}
    once = dict.fromkeys(taken, 1)

    def rounds(pair, budget):
        return len(measure.finals(calls, [pair], 12, budget, once)["a"])

    assert rounds(("a", "b"), 10.0) == 12
    assert rounds(("a", "noisy"), 10.0) > 100
    assert rounds(("a", "noisy"), 0.0) == 6


def test_geometric_mean_of_ratios():
    assert measure.geometric_mean([1.0, 4.0, 2.0]) == pytest.approx(2.0)
    assert math.isnan(measure.geometric_mean([]))


def test_all_candidates_run_in_each_round_and_warm_rounds_do_not_count():
    ran = []
    times = measure.interleaved({"a": lambda: ran.append("a"), "b": lambda: ran.append("b")}, 6, warm=2)
    assert [len(values) for values in times.values()] == [6, 6]
    rounds = [tuple(ran[i : i + 2]) for i in range(0, 16, 2)]
    assert len(rounds) == 8
    assert set(rounds) == {("a", "b"), ("b", "a")}


def test_what_is_far_behind_takes_no_part_in_the_second_rounds(soon):
    calls = {"polyad": slowly, "formula": right, "loop": slowly, "far": lambda: [slowly() for _ in range(3)]}
    groups = ["formula", "loop", "far"], ["loop", "far"]
    first, second = measure.heats(calls, "polyad", groups, 8, 1.0, dict.fromkeys(calls, 1))
    assert set(first) == set(calls)
    assert set(second) == {"polyad", "formula", "loop"}
    assert len(second["loop"]) == 8


def test_short_calls_are_repeated_in_a_sample(monkeypatch):
    monkeypatch.setattr(measure, "seconds", lambda call: call())
    repeats = measure.repeated({"short": lambda: 3e-5, "long": lambda: 5e-3, "nothing": lambda: 0.0})
    assert repeats == {"short": 67, "long": 1, "nothing": 1000}


def test_memory_of_arrays_is_the_highest_point():
    def call():
        a = np.ones(2**20)  # 8 MiB
        b = a + 1  # and 8 more
        del a
        return b[:1] * 1

    assert 16 * 2**20 <= memory.traced(call) < 17 * 2**20
    assert memory.growth(call) >= 8 * 2**20


def test_memory_of_torch_is_that_of_its_tensors():
    torch = pytest.importorskip("torch")
    x = torch.ones(2**18)  # 1 MiB
    made = framework(Problem("torch", Size(1, 1, 2, 2, 2)), compiled=False)
    assert made.peak(lambda: (x + 1 + 1)[:1] * 2) == pytest.approx(2 * 2**20, rel=1e-3)


# Reports.


def around(ratio):
    return UNKNOWN if math.isnan(ratio) else Ratio(ratio, ratio - 0.02, ratio + 0.02, 9)


def row(group="Laplacian", backend="torch", by_best=1.1, by_usual=2.0, **rest):
    def candidate(name, seconds, tag):
        return Candidate(name, tag, Spread(seconds, 0.9 * seconds, 1.2 * seconds, 9), 2**20)

    facts = {
        "forward": 1e-3,
        "polyad": candidate("polyad", 11e-3, ""),
        "candidates": (candidate("loop | rows", 10e-3, "by hand"), candidate("vmap", 22e-3, "usual")),
        "best": "loop | rows",
        "by_best": around(by_best),
        "general": "loop | rows",
        "by_general": around(by_best),
        "usual": "vmap",
        "by_usual": around(by_usual),
        "same": around(1.0),
    }
    return Row(group, f"{group}, 2 to 1, 8 x 4 x 2", backend, False, **{**facts, **rest})


EMPTY = Row("loop", "loop, 2 to 1, 8 x 4 x 2", "jax", True, problems=("scan: differs",), absent=("polyad.compile",))
REPORT = Report.of([row(), row(by_best=1.2, by_usual=8.0), row("trace", "jax", 1.01, math.nan, usual=""), EMPTY])


def test_a_summary_counts_rows_that_have_a_competitor():
    found = REPORT.summary()
    assert (found.rows, found.usual) == (3, 2)
    assert found.within_5 == pytest.approx(1 / 3)
    assert found.within_15 == pytest.approx(2 / 3)
    assert found.surely_5 == pytest.approx(1 / 3)
    assert found.surely_not_5 == pytest.approx(2 / 3)
    assert found.ahead == pytest.approx(4.0)


def test_json_gives_the_report_back(tmp_path):
    file = tmp_path / "benchmarks.json"
    REPORT.write(file)
    facts = json.loads(file.read_text())
    assert facts["versions"]["numpy"] == np.__version__
    assert "host" not in str(facts).lower()
    assert len(facts["rows"]) == 4
    again = Report.read(file)
    assert table.as_markdown(again) == table.as_markdown(REPORT)
    assert again.rows[3].problems == ("scan: differs",)


def test_the_table_says_every_row_disagreement_and_absence():
    text = table.as_markdown(REPORT)
    assert "| against the best of all ways | 3 | 33 % | 67 % | 33 % | 67 % |" in text
    assert "Ahead of the fastest usual way by 4.00, the geometric mean of 2 rows. Of each of them:" in text
    assert "| vmap | torch | 2 | 2.00 |" in text
    assert "| all of these |  | 3 | 2.00 |" in text
    assert (
        "| Laplacian, 2 to 1, 8 x 4 x 2 | torch, eager | 11.0 ms [9.9, 13.2] | 11.0 | **1.10** [1.08, 1.12] |" in text
    )
    assert "| loop   rows 10.0 ms [9.0, 12.0] |" in text
    assert "| 1.01 [0.99, 1.03] |" in text
    assert "| 1.00 [0.98, 1.02] |" in text
    assert "- jax, compiled: loop: loop, 2 to 1, 8 x 4 x 2: scan: differs" in text
    assert "## Absent\n\n- polyad.compile" in text


def test_the_slowest_rows_come_first():
    assert [row.by_best.median for row in table.slowest(REPORT)] == [1.2, 1.1]


def test_plots_have_a_panel_for_each_group(tmp_path):
    pytest.importorskip("matplotlib")
    for file in plots.draw(REPORT, tmp_path):
        text = file.read_text()
        assert all(f">{group}<" in text for group in ("Laplacian", "trace"))
        assert ">loop<" not in text  # nothing was measured there


# The command.


def test_rows_are_chosen_by_backend_group_and_whether_they_are_compiled():
    assert select() == WORKLOADS
    assert {(w.backend, w.group) for w in select(["torch"], ["trace"])} == {("torch", "trace")}
    assert {w.compiled for w in select(compiled=True)} == {True}
    quick = select(quick=True)
    assert 0 < len(quick) < len(WORKLOADS) / 2
    assert {w.group for w in quick} >= set(GROUPS) - {"loop"}


def test_no_two_rows_are_the_same():
    assert len({(w.group, w.name, w.where) for w in WORKLOADS}) == len(WORKLOADS)


def test_the_command_lists_rows(capsys):
    assert main(["bench", "--list", "--backend", "numpy", "--group", "Laplacian"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Laplacian: Laplacian, itself, 2 to 1, 1024 x 64 x 4  (numpy, eager)" in lines
    assert all(line.endswith("(numpy, eager)") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "nunpy"], "Did you mean 'numpy'?"),
        (["--group", "laplacian"], "Did you mean 'Laplacian'?"),
        (["--name", "nothing"], "no such row"),
    ],
)
def test_wrong_arguments_exit_with_two(arguments, message, capsys):
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_the_command_measures_in_a_process_and_writes_a_report(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    name = "Jacobian of a batch, itself*"
    assert main(["bench", "--backend", "numpy", "--name", name, "--rounds", "4", "--report", str(tmp_path)]) == 0
    assert "| Jacobian of a batch, itself, 3 to 3, 1 x 8 x 2 | numpy, eager |" in capsys.readouterr().out
    assert {file.name for file in tmp_path.iterdir()} == {
        "benchmarks.json",
        "benchmarks.md",
        "memory.svg",
        "ratios.svg",
    }
    (found,) = Report.read(tmp_path / "benchmarks.json").rows
    assert found.best == "tangents written out"


def test_a_process_that_dies_is_a_problem_of_its_row(monkeypatch):
    monkeypatch.setattr(runner, "ENVIRONMENT", {"POLYAD_BACKEND": "nothing", "PYTHONPATH": "/nowhere"})
    monkeypatch.setattr(runner.sys, "executable", "/bin/false")
    (row,) = runner.run(select(["numpy"], ["trace"]))
    assert row.problems == ("the process ended with 1: ",)


def test_parameters_of_everybody_are_those_of_polyad():
    problem = Problem("numpy", Size(2, 1, 3, 4, 1), "float64", coupled=True)
    shapes = [(weight.shape, bias.shape) for weight, bias in plain(problem.params)]
    assert shapes == [((2, 4), (4,)), ((4,), (4,)), ((4, 1), (1,))]
