"""tune: measures once, remembers on disk, and never changes a number."""

import json
import math
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

import polyad
from polyad import (
    BatchNorm,
    Chain,
    Dense,
    StatefulLayer,
    batched_jacobian,
    convert,
    explain,
    gradient,
    hessian,
    jacobian,
    setup,
    tune,
    tuned,
    value_and_gradient,
    xp,
)
from polyad.errors import ArgumentError, ImpureFunctionError, PolyadWarning
from polyad.operators.call import Call
from polyad.tuned import Choice, Trial, trying
from tests.examples import compiled

MODULE = sys.modules["polyad.operators.tune"]  # whose name is that of the function
POINTS = np.random.Generator(np.random.Philox(0)).uniform(0.3, 1.2, (6, 2))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of its own, and measurements that take no time."""
    monkeypatch.setenv("POLYAD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(MODULE, "SECONDS", 0.0)
    monkeypatch.setattr(MODULE, "DISTURBED", math.inf)  # one run of each tells nothing
    tuned.forget()
    yield tmp_path / "cache"
    tuned.forget()


def field(x):
    """(B, 2) to (B, 3): x, x^2 and x^3 of the first times sin of the second."""
    a, b = x[:, :1], xp.sin(x[:, 1:])
    return xp.concat([a * b, a**2 * b, a**3 * b], axis=1)


def loss(x):
    return xp.sum(batched_jacobian(field, x) ** 2)


def slope(x):
    """The gradient of the loss, by hand."""
    a, b = x[:, 0], x[:, 1]
    s, c = np.sin(b), np.cos(b)
    # loss = sum over k of (k a^(k-1) s)^2 + (a^k c)^2
    da = sum(2 * k**2 * (k - 1) * a ** (2 * k - 3) * s**2 + 2 * k * a ** (2 * k - 1) * c**2 for k in (1, 2, 3))
    db = sum(k**2 * a ** (2 * k - 2) * 2 * s * c - a ** (2 * k) * 2 * c * s for k in (1, 2, 3))
    return np.stack([da, db], axis=1)


def check(backend, found):
    np.testing.assert_allclose(np.asarray(convert(found, "numpy")), slope(POINTS), rtol=1e-10)


def call_of(backend, f=field, x=POINTS, operator="batched_jacobian"):
    return Call(operator, f, (convert(x, backend),), 0, backend)


def remembered(backend, choice, **options):
    """Write this choice for a call as if it had been tuned by itself."""
    trial = Trial()
    with trying(trial):
        tuned.choice(call_of(backend, **options))
    (level,) = trial.levels.values()
    return tuned.remember(level, choice, {})


def test_a_loss_is_tuned_at_its_inner_level_and_stays_right(backend, cache):
    x = convert(POINTS, backend)
    report = tune(gradient, loss, x, backend=backend)
    assert report.backend == backend
    assert min(report.before, report.after) > 0
    inner = [row for row in report.rows if "batched_jacobian of field" in row.level]
    assert {row.candidate.mode for row in inner} == set(polyad.backends.get(backend).modes)
    assert {row.candidate.keeps for row in inner} - {None} == (
        set() if backend == "numpy" else {"taped", "recompute", "forward_over_reverse"}
    )
    assert [row.note for row in report.rows if row.note] == []
    assert sorted(report.files) == sorted(map(str, cache.iterdir()))
    assert all(row.seconds > 0 for row in report.rows)
    chosen = [row.candidate for row in inner if row.chosen][-1]
    tuned.forget()  # as another process would

    def again(x):
        check.steps = explain(gradient, loss, x, backend=backend).steps
        return check.steps[0], gradient(loss, x, backend=backend)

    check(backend, compiled(backend, lambda x: again(x)[1])(x))
    step = check.steps[0].inner[0]
    assert step.plan.why.startswith("tuned on 20")
    assert step.plan.mode == chosen.mode
    assert step.plan.at_once == (chosen.at_once or (step.plan.at_once if chosen.at_once is None else None))
    if backend != "numpy":
        assert (step.strategy, step.reason) == (chosen.keeps, step.plan.why)


def test_the_report_is_a_table():
    report = tune(gradient, loss, convert(POINTS, "autograd"), backend="autograd")
    head, *lines = str(report).splitlines()
    assert head.startswith("gradient on autograd: ")
    assert head.endswith(" ms tuned")
    assert len(lines) == len(report.rows)
    assert lines[-1].split()[0] in ("reverse,", "forward,")
    assert sum(line.endswith(" <") for line in lines) == 2 + any("gradient of loss" in line for line in lines)


@pytest.mark.parametrize("keeps", ["taped", "recompute", "forward_over_reverse"])
@pytest.mark.parametrize("at_once", [0, 2])
@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_every_choice_gives_the_same_numbers(backend, mode, at_once, keeps):
    """Also one that the backend does not have: a file may have come from anywhere."""
    remembered(backend, Choice(mode, at_once, keeps, "2026-11-01"))
    check(backend, compiled(backend, lambda x: gradient(loss, x, backend=backend))(convert(POINTS, backend)))


def test_a_choice_is_taken_by_the_calls_it_was_measured_for_alone(monkeypatch):
    other = "reverse" if tuned_mode("autograd") == "forward" else "forward"
    remembered("autograd", Choice(other, None, None, "2026-11-01"))
    assert tuned_mode("autograd") == other
    assert tuned.choice(call_of("autograd")) == Choice(other, None, None, "2026-11-01")
    assert tuned.choice(call_of("autograd", x=POINTS[:3])) is None
    assert tuned.choice(call_of("autograd", x=POINTS.astype(np.float32))) is None
    assert tuned.choice(call_of("autograd", operator="jacobian")) is None
    assert tuned.choice(call_of("autograd", operator="value_and_batched_jacobian")) is not None
    assert tuned.choice(call_of("autograd", f=renamed(lambda x: xp.sin(x)))) is None
    monkeypatch.setattr(tuned, "__version__", "0.0")
    tuned._versions.cache_clear()
    try:
        assert tuned.choice(call_of("autograd")) is None
    finally:
        tuned._versions.cache_clear()


def tuned_mode(backend):
    return explain(batched_jacobian, field, convert(POINTS, backend), backend=backend).steps[0].plan.mode


def renamed(f):
    f.__qualname__ = field.__qualname__
    return f


def test_a_mode_that_is_asked_for_is_taken():
    remembered("autograd", Choice("forward", None, None, "2026-11-01"))
    plan = explain(batched_jacobian, field, POINTS, backend="autograd", mode="reverse").steps[0].plan
    assert (plan.mode, plan.why) == ("reverse", "asked for")


def test_functions_are_told_apart_by_code_and_by_the_functions_they_hold():
    def around(f):
        return lambda x: f(x)

    def twice(x):
        return 2 * x

    def thrice(x):
        return 3 * x

    assert tuned.identity(around(twice)) == tuned.identity(around(twice))
    assert tuned.identity(around(twice)) != tuned.identity(around(thrice))
    assert tuned.identity(twice) != tuned.identity(thrice)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "choice": {"mode": "sideways"}}'])
def test_a_file_that_is_damaged_is_ignored_with_one_warning(content):
    path = remembered("autograd", Choice("forward", None, None, "2026-11-01"))
    path.write_text(content)
    tuned.forget()
    with pytest.warns(PolyadWarning, match=r"does not hold what polyad\.tune wrote there"):
        found = gradient(loss, POINTS, backend="autograd")
    check("autograd", found)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check("autograd", gradient(loss, POINTS, backend="autograd"))


def test_a_folder_that_was_emptied_is_no_error():
    path = remembered("autograd", Choice("forward", None, None, "2026-11-01"))
    tuned.forget()
    assert tuned.choice(call_of("numpy")) is None  # which has listed the folder
    path.unlink()
    check("autograd", gradient(loss, POINTS, backend="autograd"))


def test_where_choices_are_kept(monkeypatch, tmp_path):
    assert tuned.folder() == tmp_path / "cache"
    monkeypatch.delenv("POLYAD_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tuned.folder() == tmp_path / "xdg" / "polyad"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tuned.folder() == tmp_path / ".cache" / "polyad"


def test_nothing_is_looked_up_where_nothing_was_tuned(backend, monkeypatch, cache):
    def never(*args):
        raise AssertionError("a key was made")

    monkeypatch.setattr(tuned, "key", never)
    monkeypatch.setattr(tuned, "_start", never)
    check(backend, gradient(loss, convert(POINTS, backend), backend=backend))
    assert not cache.exists()


def test_what_auto_does_is_never_measured(monkeypatch):
    def never(*args):
        raise AssertionError("measured")

    monkeypatch.setattr(MODULE._Search, "_times", never)
    check("autograd", gradient(loss, POINTS, backend="autograd"))
    with pytest.raises(AssertionError, match="measured"):
        tune(gradient, loss, POINTS, backend="autograd")


def test_a_candidate_that_differs_or_raises_is_not_chosen(monkeypatch):
    adapter = polyad.backends.get("autograd")
    real = type(adapter).pushforward

    def wrong(self, f, xs, dxs, has_aux=False):
        ys, dys, *aux = real(self, f, xs, dxs, has_aux)
        return (ys, tuple(1.5 * dy for dy in dys), *aux)

    monkeypatch.setattr(type(adapter), "pushforward", wrong)
    monkeypatch.setattr(type(adapter), "pushed_by_jets", False)  # so that it pushes itself
    rows = tune(jacobian, lambda x: xp.sin(x[0]), POINTS, backend="autograd", mode="auto").rows
    notes = {row.candidate.mode: row.note for row in rows}
    assert notes["forward"] == "differs by 0.5"
    assert notes["reverse"] == ""
    assert [row.candidate.mode for row in rows if row.chosen] == ["reverse"]

    def refused(*args, **options):
        raise NotImplementedError("no rule")

    monkeypatch.setattr(type(adapter), "pushforward", refused)
    report = tune(hessian, lambda x: xp.sum(xp.sin(x)), POINTS[0], backend="autograd")
    assert "forward" not in {row.candidate.mode for row in report.rows if row.chosen and row.note}


@pytest.mark.parametrize("name", ["torch", "autograd"])
def test_a_hessian_is_tuned_at_its_levels_under_the_name_of_its_function(name):
    pytest.importorskip(name)

    def energy(x):
        return xp.sum(x**3)

    x = convert(POINTS[0], name)
    report = tune(hessian, energy, x, backend=name)
    assert all(row.level.endswith("energy") for row in report.rows)
    assert {row.level.split()[0] for row in report.rows} == {"hessian", "jacobian"}
    found = hessian(energy, x, backend=name)
    np.testing.assert_allclose(np.asarray(convert(found, "numpy")), np.diag(6 * POINTS[0]), rtol=1e-12)


def test_two_functions_under_one_operator_have_choices_of_their_own():
    """hessian differentiates functions of polyad's own, which hold that of the user."""
    first, second = (Call("hessian", f, (POINTS,), 0, "autograd") for f in (lambda x: xp.sin(x), lambda x: xp.cos(x)))

    def inner(call):
        return lambda xs: call.flat(*xs)

    assert tuned.identity(inner(first)) != tuned.identity(inner(second))


def test_the_state_of_a_net_is_as_it_was():
    model = Chain(Dense(2, 3), BatchNorm(3), Dense(3, 1))
    params, state = setup(0, model, backend="autograd", dtype="float64")
    net = StatefulLayer(model, params, state)
    scalar = net >> xp.sum
    tune(value_and_gradient, scalar, POINTS, backend="autograd")
    tune(jacobian, net, POINTS, backend="autograd")
    tune(polyad.value_and_jacobian, net, POINTS, backend="autograd")
    assert net.state is state


def test_a_function_that_changes_cannot_be_tuned():
    count = [0.0]

    def drifting(x):
        count[0] += 1.0
        return xp.sum(x) * count[0]

    with pytest.raises(ImpureFunctionError, match="two calls of gradient differ by"):
        tune(gradient, drifting, POINTS, backend="autograd")


def test_something_that_is_no_operator_is_refused():
    with pytest.raises(ArgumentError, match=r"Type tune\(gradient, f, x\)"):
        tune(lambda f, x: x, loss, POINTS)


def test_two_threads_that_tune_at_once_leave_whole_files(cache):
    path = remembered("autograd", Choice("forward", None, None, "2026-11-01"))
    done, broken = threading.Event(), []

    def write(mode):
        for _ in range(60):
            remembered("autograd", Choice(mode, None, None, "2026-11-01"))

    def read():
        while not done.is_set():
            try:
                assert json.loads(path.read_text())["choice"]["mode"] in ("forward", "reverse")
            except Exception as error:  # to be looked at in the thread of the test
                broken.append(error)

    reader = threading.Thread(target=read)
    writers = [threading.Thread(target=write, args=(mode,)) for mode in ("forward", "reverse")]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert broken == []
    assert [p.name for p in cache.iterdir()] == [path.name]  # no temporary file is left


PROGRAM = """
import sys
import numpy as np
from polyad import explain, jacobian, tune, xp
sys.modules["polyad.operators.tune"].SECONDS = 0.0
sys.modules["polyad.operators.tune"].DISTURBED = float("inf")
def f(x):
    return xp.sin(x) * x
x = np.ones(3)
tune(jacobian, f, x, backend="autograd")
assert explain(jacobian, f, x, backend="autograd").steps[0].plan.why.startswith("tuned on")
"""


def test_processes_that_tune_at_once_do_not_meet(cache):
    pytest.importorskip("autograd")
    running = [
        subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    (path,) = cache.iterdir()
    assert json.loads(path.read_text())["function"] == "f"


def test_what_is_slower_than_the_plan_is_not_remembered(cache, monkeypatch):
    pytest.importorskip("autograd")
    monkeypatch.setattr(MODULE, "DISTURBED", 0.0)
    found = tune(gradient, loss, POINTS, backend="autograd")
    assert found.rows
    assert not found.files
    assert not cache.exists()
    assert "not remembered, since it is slower" in str(found)
