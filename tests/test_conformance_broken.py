"""The suite is tested: adapters that are wrong on purpose are rejected by the cases that are there for them."""

import fnmatch

import pytest
from polyad_conformance.broken import BREAKAGES, standing_in
from polyad_conformance.runner import GROUPS, cases_of, run_case

from polyad.backends import get

PLACES = {f"{case.group}/{case.name}": case for group in GROUPS for case in cases_of(group)}
UNHARMED = ("ok", "skipped", "gap")


@pytest.fixture(params=["autograd", "torch"])
def sound(request, registry):
    """The name of a backend whose adapter a broken one stands in for."""
    pytest.importorskip(request.param)
    return request.param


def passing(name, pattern, dtype="float64"):
    """The cases of the pattern that pass, and how many there are."""
    found = [place for place in PLACES if fnmatch.fnmatchcase(place, pattern)]
    return [p for p in found if run_case(PLACES[p], name, dtype, gaps=()).cell in UNHARMED], len(found)


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda b: b.name)
def test_a_broken_adapter_is_rejected_by_every_case_that_is_there_for_it(sound, breakage):
    with standing_in(sound, breakage.broken):
        for pattern in breakage.rejected_by:
            passed, total = passing(sound, pattern)
            assert total, pattern
            assert passed == []


def test_mistakes_in_numbers_are_seen_in_float32_too(sound):
    for breakage in BREAKAGES:
        if breakage.float32_too and breakage.name != "zero":
            pattern = breakage.rejected_by[0]
            with standing_in(sound, breakage.broken):
                passed, total = passing(sound, pattern, "float32")
            assert len(passed) < total, breakage.name


def test_an_unbroken_adapter_in_its_place_passes(sound):
    with standing_in(sound, lambda adapter: type("Same", (adapter,), {})):
        for pattern in ("adapter laws/pull*", "first order/gradient: a*", "documented examples/3*"):
            passed, total = passing(sound, pattern)
            assert len(passed) == total > 0
    assert type(get(sound)).__name__ != "Same"


def test_each_breakage_is_said_once_and_there_are_ten_of_them():
    names = [breakage.name for breakage in BREAKAGES]
    assert len(set(names)) == len(names) >= 10
    wanted = {"zero pullback", "halved cotangent", "drops parameters", "drops captured arrays", "transposed"}
    wanted |= {"float32 inside", "remembers the last point", "mask redrawn", "state advanced twice", "error swallowed"}
    assert wanted <= set(names)


# An adapter with one pass alone, and that one zero: nothing else can give a right number.


def test_no_case_passes_with_a_pushforward_of_zeros(registry):
    zero = next(breakage for breakage in BREAKAGES if breakage.name == "zero pushforward")
    with standing_in("numpy", zero.broken):
        passed, total = passing("numpy", "*")
    assert [place for place in passed if not PLACES[place].needs] == []
    assert total == len(PLACES) > 500


def test_no_case_passes_when_every_gradient_is_zero(sound):
    zero = next(breakage for breakage in BREAKAGES if breakage.name == "zero")
    with standing_in(sound, zero.broken):
        passed, total = passing(sound, "*")
    assert passed == []
    assert total == len(PLACES)
