"""The cases on the backends, and what a case, a gap, a device and a run are."""

import dataclasses
import fnmatch
import re

import numpy as np
import pytest
from polyad_conformance import case as cases
from polyad_conformance import gaps, runner
from polyad_conformance.case import Case, UnlikeError, refused
from polyad_conformance.gaps import Gap
from polyad_conformance.runner import GROUPS, adapter_at, cases_of, run, run_case

import polyad
from polyad import errors, trees, xp
from polyad.backends.base import Backend

ALL = [case for group in GROUPS for case in cases_of(group)]


def failures(outcomes):
    return [f"{o.group}: {o.case} ({o.dtype}): {o.message}" for o in outcomes if o.failed]


# JAX compiles every case: there, those of one kind each are enough here. `make conformance` runs all of them.
ON_JAX = (
    *("pull*adjoint*", "captured arrays: reverse*", "order 3: forward of reverse*", "gradient: nested trees"),
    *("jvp: one array", "hessian: aux", "laplacian: a batch*", "vjp inside, auto", "gradient inside, recompute"),
    *("batched_jacobian inside, forward_over_reverse", "2: a gradient*", "BatchNorm in testing", "setup*"),
    *("the gradient of*", "argnums=1 of*", "float(x)*"),
)


@pytest.mark.parametrize("group", [group for group in GROUPS if group not in runner.PROVIDERS])
def test_every_case_is_right_or_a_documented_gap(backend, group):
    found = list(run([backend], [group], cases=ON_JAX if backend == "jax" else ()))
    assert failures(found) == []
    assert {o.cell for o in found} <= {"ok", "gap", "skipped"}
    reasons = {o.reason for o in found if o.cell == "skipped"}
    assert reasons <= {"numpy has no reverse pass itself", f"the adapter of {backend} has no compiler"}


@pytest.mark.parametrize("jobs", [1, 2])
def test_operations_are_a_group_and_may_be_shared_between_processes(jobs):
    asked = run(["numpy"], ["operations"], cases=("tanh", "t*nh"), jobs=jobs)
    found = list(asked)
    assert len(found) == len(asked) == 9
    assert {o.case for o in found} == {"tanh"}
    assert len({o.mode for o in found}) == 9
    assert {o.cell for o in found} == {"ok", "skipped"}


def test_operations_on_a_device_that_is_not_there_are_skipped():
    found = list(run(["numpy"], ["operations"], cases=("tanh",), device="gpu"))
    assert {o.cell for o in found} == {"skipped"}
    assert {o.reason for o in found} == {"numpy has no gpu here; its devices are cpu"}


# Cases.


def test_names_are_said_once():
    names = [(case.group, case.name) for case in ALL]
    assert len(set(names)) == len(names)


def test_every_answer_is_the_same_tree_twice_and_no_answer_is_nothing():
    for case in ALL:
        leaves = [np.asarray(leaf) for leaf in trees.leaves(case.answer) if not isinstance(leaf, str | bool)]
        assert any(np.max(np.abs(leaf), initial=0.0) > 1e-2 for leaf in leaves), case.name
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves), case.name


def test_both_precisions_see_the_same_point():
    for case in ALL:
        for leaf in trees.leaves(case.inputs):
            if isinstance(leaf, np.ndarray) and leaf.dtype == float and "float32" in case.dtypes:
                np.testing.assert_allclose(leaf.astype(np.float32), leaf, rtol=1e-7)


def test_numbers_are_drawn_once_and_for_all():
    assert cases.numbers("x", 2).tolist() == cases.numbers("x", 2).tolist()
    assert cases.numbers("x", 2).tolist() != cases.numbers("y", 2).tolist()
    assert cases.numbers("batched_jacobian_in_loss/x", 10, 2)[0, 0] == -0.20186562836170197


@pytest.mark.parametrize(
    ("call", "words", "message"),
    [
        (lambda: 3.0, ("a",), "nothing was raised; expected ValueError. It returned 3.0"),
        (lambda: 1 / 0, ("a",), "raised ZeroDivisionError: division by zero; expected ValueError"),
        (lambda: float("a"), ("could not", "nowhere"), "does not say .'nowhere'."),
    ],
)
def test_a_refusal_is_of_the_right_class_with_the_right_words(call, words, message):
    with pytest.raises(UnlikeError, match=message):
        refused(call, ValueError, *words)
    refused(lambda: float("a"), ValueError, "could not convert")


# Outcomes.

SQUARES = Case("laws", "squares", lambda x: polyad.gradient(lambda x: xp.sum(x * x), x), (np.ones(3),), lambda x: 2 * x)


def asked(ask, expected=lambda x: 2 * x, **options):
    return run_case(dataclasses.replace(SQUARES, ask=ask, expected=expected, **options), "numpy", "float64", gaps=())


def test_an_outcome_holds_its_numbers():
    found = run_case(SQUARES, "numpy", "float32")
    assert (found.cell, found.worst, found.tolerance, found.backend) == ("ok", "result", 1e-4, "numpy")
    assert found.difference < 1e-6
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("ask", "cell", "message"),
    [
        (lambda x: 2 * x + 1e-9, "wrong", "result differs from the reference by 5.0e-10; 1e-10 is allowed"),
        (lambda x: 0 * x, "silent zero", "result is zero in every entry"),
        (lambda x: 2 * x[:2], "wrong", r"result has shape \(2,\), not \(3,\)"),
        (lambda x: (2 * x,), "wrong", "the result is the tree"),
        (lambda x: (2 * x).astype(np.float32), "wrong", "result is float32, not float64"),
        (lambda x: x / 0.0, "wrong", "by inf"),
        (lambda x: x * np.nan, "wrong", "by nan"),
        (lambda x: 1 // 0, "raises", "ZeroDivisionError: "),
        (lambda x: [2, 2, 2], "wrong", "the result is the tree"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_what_is_wrong_is_said(ask, cell, message):
    found = asked(ask)
    assert found.cell == cell
    assert found.failed
    assert re.search(message, found.message), found.message


def test_a_nan_is_not_hidden_behind_a_later_leaf():
    found = asked(lambda x: (x * np.nan, 2 * x), lambda x: (2 * x, 2 * x))
    assert (found.cell, found.worst) == ("wrong", "result[0]")


def test_an_answer_of_zero_is_compared_with():
    assert asked(lambda x: 0 * x, lambda x: 0 * x).cell == "ok"
    assert asked(lambda x: 0 * x + 1e-9, lambda x: 0 * x).cell == "wrong"


def test_an_answer_of_another_point_or_another_call_is_seen():
    kept = []

    def remembers(x):
        kept.append(2 * x)
        return kept[0]

    def second(x):
        kept.append(x)
        return 2 * x * len(kept)

    assert asked(remembers, compiled=False).cell == "wrong"
    kept.clear()
    assert asked(lambda x: second(x) / 2, compiled=False).cell == "wrong"


def test_finite_differences_are_a_second_witness():
    def half(x):
        return x**3 * 0.5

    def ask(x):
        return xp.sum(half(x)), (x * x,)  # what the formula says too: both are wrong

    wrong = dataclasses.replace(
        SQUARES, ask=ask, expected=lambda x: (np.sum(half(x)), (x * x,)), loss=lambda x: xp.sum(half(x))
    )
    found = run_case(wrong, "numpy", "float64", gaps=())
    assert found.cell == "wrong"
    assert "differs from central differences" in found.message
    right = dataclasses.replace(
        SQUARES,
        ask=lambda x: (xp.sum(half(x)), (1.5 * x * x,)),
        expected=lambda x: (np.sum(half(x)), (1.5 * x * x,)),
        loss=lambda x: xp.sum(half(x)),
    )
    assert "central differences agree to" in run_case(right, "numpy", "float64", gaps=()).witness


def test_a_pass_that_a_backend_does_not_have_is_skipped_with_a_reason():
    found = run_case(dataclasses.replace(SQUARES, needs=frozenset({"reverse"})), "numpy", "float64")
    assert (found.cell, found.reason) == ("skipped", "numpy has no reverse pass itself")


# Devices and precisions.


def test_without_the_device_every_case_is_skipped_with_a_reason():
    found = list(run(["numpy"], device="gpu"))
    assert {o.cell for o in found} == {"skipped"}
    assert {o.reason for o in found if not o.case.startswith("?")} == {"numpy has no gpu here; its devices are cpu"}
    assert {o.device for o in found} == {"gpu"}


def test_a_case_runs_on_the_device_that_the_adapter_names(registry):
    torch = pytest.importorskip("torch")
    placed = []

    class Two(type(polyad.backends.get("torch"))):
        def devices(self):
            return ("cpu", "meta:0")

        def asarray(self, values, dtype=None, device=None):
            placed.append(device)
            return super().asarray(values, dtype, None)

    registry.register_backend("two", Two)
    assert run_case(SQUARES, "two", "float64", "gpu", ()).cell == "ok"
    assert set(placed) == {"meta:0"}
    assert run_case(SQUARES, "two", "float64", "gpu", ()).tolerance == 1e-9
    del torch


def test_a_precision_that_is_switched_off_is_a_skip():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(False):
        found = run_case(SQUARES, "jax", "float64")
    assert found.cell == "skipped"
    assert "jax_enable_x64" in found.reason


def test_flags_of_frameworks_are_put_back():
    jax = pytest.importorskip("jax")
    before = jax.config.read("jax_disable_most_optimizations"), jax.config.jax_default_matmul_precision
    run_case(SQUARES, "jax", "float64")
    assert (jax.config.read("jax_disable_most_optimizations"), jax.config.jax_default_matmul_precision) == before


# Backends.


def test_a_backend_that_is_not_installed_is_skipped_with_its_cure(registry):
    registry.register_backend("absent", "absent.adapter:Absent", module="absent", install="pip install absent")
    found = run_case(SQUARES, "absent", "float64")
    assert found.cell == "skipped"
    assert "pip install absent" in found.reason


class Theirs(Backend):
    """An adapter of another package: autograd, by one primitive."""

    name = "theirs"
    host = True

    @property
    def namespace(self):
        return polyad.backends.get("autograd").namespace

    def owns(self, array):
        return polyad.backends.get("autograd").owns(array)

    def pullback(self, f, xs):
        return polyad.backends.get("autograd").pullback(f, xs)

    def stop_gradient(self, array):
        return polyad.backends.get("autograd").stop_gradient(array)

    def asarray(self, values, dtype=None, device=None):
        return polyad.backends.get("autograd").asarray(values, dtype, device)

    def to_host(self, array):
        return polyad.backends.get("autograd").to_host(array)

    def scope(self):
        return polyad.backends.get("autograd").scope()


@pytest.mark.usefixtures("registry")
def test_an_adapter_of_another_package_is_run_by_its_place():
    pytest.importorskip("autograd")
    found = list(run([f"{__name__}:Theirs"], ["adapter laws", "errors"], ["float64"]))
    assert failures(found) == []
    assert {o.backend for o in found} == {"theirs"}
    assert isinstance(adapter_at("theirs"), Theirs)


# Runs.


def test_a_run_says_how_many_cells_there_will_be():
    some = run(["numpy"], ["adapter laws", "errors"], cases=["pull*", "a*"])
    assert len(list(some)) == len(some) > 10
    assert len(run(["numpy", "theirs"], ["errors"])) == 2 * len(run(["numpy"], ["errors"]))
    assert len(run(["numpy"], ["adapter laws"], ["float64"])) * 2 == len(run(["numpy"], ["adapter laws"]))


def test_processes_find_what_one_finds():
    alone = {(o.case, o.dtype): o.cell for o in run(["numpy"], ["adapter laws", "errors"], cases=["a*"])}
    together = {(o.case, o.dtype): o.cell for o in run(["numpy"], ["adapter laws", "errors"], cases=["a*"], jobs=2)}
    assert alone == together


# Gaps.


def gap(**options):
    known = {"backend": "numpy", "versions": "", "cases": ("laws/squares",), "reason": "why", "link": "where"}
    return Gap(**{**known, "found": "wrong", **options})


def outcome_with(*known, ask=lambda x: 3 * x):
    return run_case(dataclasses.replace(SQUARES, ask=ask), "numpy", "float64", gaps=known)


def test_a_known_failure_is_a_gap_with_its_reason():
    found = outcome_with(gap())
    assert (found.cell, found.found, found.reason, found.link, found.failed) == ("gap", "wrong", "why", "where", False)


def test_a_gap_that_is_gone_is_a_failure():
    found = outcome_with(gap(), ask=lambda x: 2 * x)
    assert (found.cell, found.failed) == ("unexpected pass", True)


@pytest.mark.parametrize(
    "other",
    [
        {"backend": "torch"},
        {"versions": "<1"},
        {"cases": ("laws/other*",)},
        {"found": "raises"},
        {"found": "silent zero"},
        {"dtypes": ("float32",)},
    ],
)
def test_a_gap_covers_nothing_else(other):
    assert outcome_with(gap(**other)).cell == "wrong"


def test_a_gap_is_one_of_versions():
    assert outcome_with(gap(versions=f"=={np.__version__}")).cell == "gap"
    assert outcome_with(gap(versions=f">={np.__version__}")).cell == "gap"
    assert outcome_with(gap(versions=f">{np.__version__}")).cell == "wrong"


def test_what_is_skipped_is_no_gap():
    assert next(iter(run(["numpy"], ["errors"], device="gpu", cases=["a*"]))).cell == "skipped"


def test_gaps_are_of_cases_that_there_are():
    places = [f"{case.group}/{case.name}" for case in ALL]
    for known in gaps.GAPS:
        assert known.reason
        for pattern in known.cases:
            own = pattern.partition("/")[0] in GROUPS and pattern.partition("/")[0] not in runner.PROVIDERS
            assert not own or any(fnmatch.fnmatchcase(place, pattern) for place in places), pattern


def test_errors_of_polyad_are_what_the_errors_group_is_about():
    assert len(cases_of("errors")) > 50
    assert issubclass(errors.NotScalarError, errors.PolyadError)
