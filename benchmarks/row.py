"""One Workload, checked and measured: a Row."""

import dataclasses
import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .measure import UNKNOWN, Ratio, Spread, Times, finals, heats, interleaved, ratio, repeated, spread
from .ways import Absent
from .workload import Workload

__all__ = ["Candidate", "Row", "difference", "measured"]

TOLERANCE = {"float64": 1e-9, "float32": 3e-3}
"""Of a relative difference in norm; third derivatives of float32 lose four digits of seven."""

BY_DIFFERENCES = 1e-5
"""The same of central differences, which the usual way on NumPy is."""


@dataclass(frozen=True)
class Candidate:
    """What was found of one way.

    time    CPU seconds; of a candidate that could not win those of a few rounds
    memory  bytes at the highest point of a call of polyad, the best and the usual way; else None, and where it
            cannot be said
    """

    name: str
    tag: str
    time: Spread
    memory: int | None


@dataclass(frozen=True)
class Row:
    """What was found of one Workload. A ratio is unknown where there is nothing to compare with.

    forward    seconds of a forward pass
    polyad     itself; candidates: the others, the fastest first
    best       the fastest of the others; by_best its ratio: polyad / best
    general    the same without formulas, which are for this one network; by_general
    usual      the fastest of those that people usually write; by_usual is usual / polyad
    same       of the best general way built once more / itself: what the ratio of equal programs is in this row
    problems   who disagreed by how much, and who raised what: nothing of these was timed
    absent     libraries that are not installed, and polyad.compile where it is missing
    """

    group: str
    name: str
    backend: str
    compiled: bool
    forward: float = math.nan
    polyad: Candidate | None = None
    candidates: tuple[Candidate, ...] = ()
    best: str = ""
    by_best: Ratio = UNKNOWN
    general: str = ""
    by_general: Ratio = UNKNOWN
    usual: str = ""
    by_usual: Ratio = UNKNOWN
    same: Ratio = UNKNOWN
    problems: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.backend}, {'compiled' if self.compiled else 'eager'}"

    def candidate(self, name: str) -> Candidate | None:
        return next((candidate for candidate in self.candidates if candidate.name == name), None)

    def json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Row":
        def candidate(facts: Mapping[str, Any]) -> Candidate:
            return Candidate(**{**facts, "time": Spread(**facts["time"])})

        return cls(
            **{
                **found,
                "polyad": candidate(found["polyad"]) if found["polyad"] else None,
                "candidates": tuple(map(candidate, found["candidates"])),
                **{name: Ratio(**found[name]) for name in RATIOS},
                "problems": tuple(found["problems"]),
                "absent": tuple(found["absent"]),
            }
        )


RATIOS = ("by_best", "by_general", "by_usual", "same")
POLYAD, AGAIN = "polyad", "the best once more"


def measured(workload: Workload, rounds: int = 41, *, memory: bool = True) -> Row:
    """The row: every competitor is compared with polyad before it is timed."""
    empty = Row(workload.group, workload.name, workload.backend, workload.compiled)
    try:
        ours = workload.polyad()
        expected = arrays(ours())
    except Absent as missing:
        return dataclasses.replace(empty, absent=(str(missing),))
    except Exception as error:
        return dataclasses.replace(empty, problems=(f"polyad: {_short(error)}",))
    calls, tags, problems, absent = _agreeing(workload, expected)
    calls = {POLYAD: ours, **calls}
    usual = [name for name, tag in tags.items() if tag in ("usual", "library")]
    general = [name for name, tag in tags.items() if tag != "formula"]
    repeats = repeated(calls)
    first, second = heats(calls, POLYAD, (list(tags), general), rounds // 2, workload.budget / 3, repeats)
    forward = workload.forward()
    forward()
    unit = spread(interleaved({"": forward}, max(5, rounds // 4), repeats={"": 5})[""]).median

    best, any_network, often = (_fastest(names, first, second) for names in (list(tags), general, usual))
    chosen = {name: calls[name] for name in (POLYAD, best, any_network, often) if name in second}
    if any_network in chosen:
        chosen[AGAIN] = workload.ways()[any_network][1]()
        chosen[AGAIN](), chosen[AGAIN]()
        repeats[AGAIN] = repeats[any_network]
    pairs = [(POLYAD, name) for name in (best, any_network) if name in chosen]
    third = finals(chosen, pairs, rounds, workload.budget, {name: repeats[name] for name in chosen})
    parts = third, second, first
    asked = {POLYAD, best, any_network, often} if memory else set()

    def candidate(name: str) -> Candidate:
        times = spread(next(times[name] for times in parts if name in times))
        return Candidate(name, tags.get(name, ""), times, workload.peak(calls[name]) if name in asked else None)

    others = sorted((candidate(name) for name in tags), key=lambda candidate: candidate.time.median)
    return dataclasses.replace(
        empty,
        forward=unit,
        polyad=candidate(POLYAD),
        candidates=tuple(others),
        best=best,
        by_best=_compared(POLYAD, best, *parts),
        general=any_network,
        by_general=_compared(POLYAD, any_network, *parts),
        usual=often,
        by_usual=_compared(often, POLYAD, *parts),
        same=_compared(AGAIN, any_network, third),
        problems=tuple(problems),
        absent=tuple(dict.fromkeys(absent)),
    )


def _agreeing(
    workload: Workload, expected: list[np.ndarray]
) -> tuple[dict[str, Callable[[], Any]], dict[str, str], list[str], list[str]]:
    """(calls, tags, problems, absent)."""
    calls, tags, problems, absent = {}, {}, [], []
    for name, (way, build) in workload.ways().items():
        try:
            call = build()
            gap = difference(arrays(call()), expected)
        except Absent as missing:
            absent.append(str(missing))
        except Exception as error:
            problems.append(f"{name}: {_short(error)}")
        else:
            if gap <= max(TOLERANCE[workload.dtype], BY_DIFFERENCES if "differences" in name else 0.0):
                calls[name], tags[name] = call, way.tag
            else:
                problems.append(f"{name}: differs from polyad by {gap:.1e}")
    gc.collect()
    return calls, tags, problems, absent


def _fastest(names: list[str], first: Times, second: Times) -> str:
    """By rounds that no ratio is made of, so that choosing among many favours nobody."""
    times = {name: second[name] for name in names if name in second} or {name: first[name] for name in names}
    return min(times, key=lambda name: spread(times[name]).median, default="")


def _compared(name: str, other: str, *parts: Times) -> Ratio:
    """The ratio of times of the first part in which both ran."""
    return next((ratio(times[name], times[other]) for times in parts if name in times and other in times), UNKNOWN)


def arrays(found: Any) -> list[np.ndarray]:
    """The leaves of lists and tuples, as NumPy has them."""
    if isinstance(found, list | tuple):
        return [leaf for part in found for leaf in arrays(part)]
    detached = found.detach() if hasattr(found, "detach") else found
    return [np.asarray(detached, np.float64)]


def difference(found: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest relative difference of a leaf, in norm; of a small leaf relative to a hundredth of all of them.

    inf where shapes differ, nan never: a nan in either is inf.
    """
    if [leaf.shape for leaf in found] != [leaf.shape for leaf in expected]:
        return math.inf
    whole = math.sqrt(sum(float(np.sum(leaf**2)) for leaf in expected))
    gaps = [
        float(np.linalg.norm(a - b)) / max(float(np.linalg.norm(b)), whole / 100, 1e-300)
        for a, b in zip(found, expected)
    ]
    worst = max(gaps, default=0.0)
    return worst if all(map(math.isfinite, gaps)) else math.inf


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:200]}"
