"""Which pass runs a derivative, how it takes many directions, and why.

One rule for all backends: of the passes that a framework has itself, the one that
the model of costs.py predicts to be the cheapest. An adapter that was not measured
has a neutral one: the pass with fewer sweeps, and all directions in one.
"""

import functools
import math
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

from polyad.backends.base import Backend
from polyad.costs import Cost, Situation, costs, factors, measured
from polyad.errors import ModeError, PolyadWarning

MODES = ("auto", "forward", "reverse", "finite_difference")

__all__ = ["MODES", "Cost", "Plan", "Situation", "by_sweeps", "choose", "keeps", "leanest", "refuse_unknown"]


@dataclass(frozen=True)
class Plan:
    """A mode, the number of sweeps it takes, and the reason.

    at_once  how many directions go through one sweep; None for as many as fit in memory
    costs    of every candidate, the cheapest first; () where nothing was measured
    source   on what and when they were measured
    """

    mode: str
    sweeps: int
    why: str
    at_once: int | None = None
    costs: tuple[Cost, ...] = ()
    source: str = ""

    @property
    def prediction(self) -> str:
        """The candidates and what they are predicted to cost, in words; "" where nothing was measured."""
        if not self.costs:
            return ""
        return f"predicted in forward passes: {', '.join(map(str, self.costs))} ({self.source})"


# A pushforward against a pullback, per sweep, where nothing was measured: what it was on torch, where
# 4.6 to 1.0 with 3 inputs and 3 outputs falls to 1.6 with 16 outputs (tanh MLPs, one CPU thread, 2026-11).
ROWS_PER_COLUMN = 2


# sum(tanh(w)^2) of 10 000 entries: 0.1 ms, its gradient in forward mode 0.9 s (NumPy, one thread, 2026-11).
MANY_COLUMNS = 10_000


_said: set[str] = set()


def _say_once(name: str, columns: int) -> None:
    if name in _said:
        return
    _said.add(name)
    warnings.warn(
        f"a gradient of {columns} entries takes as many directions on {name}, which has forward mode only. "
        f"One sweep is enough with backend='autograd', or with arrays of JAX or torch",
        PolyadWarning,
        stacklevel=_levels_up(),
    )


def _levels_up() -> int:
    """The stacklevel of the caller that is not of polyad."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("polyad."):
        frame, level = frame.f_back, level + 1
    return level


def choose(
    backend: Backend,
    mode: str,
    columns: int,
    rows: int | None,
    batch: int = 1,
    compiled: bool = False,
    nested: bool = False,
) -> Plan:
    """The plan for a Jacobian of so many columns (inputs) and rows (outputs).

    rows      None where only running f would tell
    batch     how many such Jacobians are made at once, as by batched_jacobian
    compiled  whether the code is compiled later; nested: whether the Jacobian is itself differentiated
    raises    ModeError for a mode that does not exist
    """
    if mode == "auto" and backend.modes == ("forward",) and columns >= MANY_COLUMNS > (rows or columns):
        _say_once(backend.name, columns)
    name = "" if backend.over is not None else backend.name  # jets over a framework do not cost what it costs itself
    forward = DENSE_COLUMNS if backend.pushed_by_jets and batch == 1 else 1.0
    return _chosen(name, backend.name, backend.modes, mode, columns, rows, batch, compiled, nested, forward)


def by_sweeps(backend: Backend, mode: str, columns: int, rows: int | None) -> Plan:
    """The plan by the number of sweeps alone, for what is no Jacobian and costs something else."""
    return _chosen("", backend.name, backend.modes, mode, columns, rows, 1, False, False, 1.0)


DENSE_COLUMNS = 1.7
"""Columns of a whole Jacobian, in the time of columns of rows, whose directions are the same in all rows: 1.2 to 3 in
docs/plans.md."""


@functools.lru_cache(maxsize=4096)
def _chosen(
    measured_as: str,
    name: str,
    modes: tuple[str, ...],
    mode: str,
    columns: int,
    rows: int | None,
    batch: int,
    compiled: bool,
    nested: bool,
    forward: float,
) -> Plan:
    refuse_unknown(mode)
    sweeps = {"forward": columns, "finite_difference": 2 * columns, "reverse": rows or 1}
    found = costs(measured_as, Situation(compiled, nested), columns, rows or 1, batch * max(columns, rows or 1))
    # Of a function that has not run the rows are unknown, and what they cost.
    found = tuple(replace(c, passes=forward * c.passes) if c.mode == "forward" else c for c in found)
    found = tuple(sorted(found, key=lambda cost: cost.passes))
    own = tuple(cost for cost in found if cost.mode in modes and (rows is not None or cost.mode == "forward"))

    def plan(mode: str, why: str) -> Plan:
        best = next((cost for cost in own if cost.mode == mode), None)
        at_once = 1 if best is not None and best.batching == "loop" else None
        source = measured(measured_as) if own else ""
        return Plan(mode, sweeps[mode], why, at_once, own, source)

    if mode != "auto":
        return plan(mode, "asked for")
    if len(modes) == 1:
        return plan(modes[0], f"the only pass that {name} has")
    by_rows = f"{_many(rows or 1, 'row')} against {_many(columns, 'column')}"
    if rows is None or rows <= 1:  # one sweep, and few functions lack a reverse pass
        return plan("reverse", by_rows)
    best = own[0].mode if own else ("reverse" if rows <= ROWS_PER_COLUMN * columns else "forward")
    return plan(best, by_rows if best == "reverse" else f"{_many(columns, 'column')} against {_many(rows, 'row')}")


LEANER_WITHIN = 1.05
"""A strategy that keeps less is chosen where it takes up to so many times as long as the fastest,"""

LEANER_IN_A_LOOP = 1.5
"""and in the body of a loop for a compiler up to so many times: there it is kept for each step. A scan of 20
gradients takes 1/33 of the memory and half of the time if they are recomputed (docs/nested.md)."""


def leanest(times: Mapping[str, float], limit: float) -> str:
    """The strategy to take, by times: one that keeps inputs alone within this limit of the fastest, else the fastest.

    Of the two that do, recompute unless a dual sweep is faster by more than 5 %: it asks less of a framework.
    """
    fastest = min(times.values())
    lean = {key: time for key, time in times.items() if key != "taped" and time <= limit * fastest}
    if not lean:
        return min(times, key=lambda key: times[key])
    again = lean.get("recompute", math.inf)
    return "recompute" if again <= LEANER_WITHIN * min(lean.values()) else min(lean, key=lambda key: lean[key])


def keeps(backend: Backend, mode: str, compiled: bool, looped: bool = False) -> tuple[str, str] | None:
    """(what a derivative keeps for the pass around it, why); None where that was not measured.

    mode  "gradient" for one sweep; "reverse", "forward" for many, "auto" where that is not known yet
    """
    return _keeps(backend.name, backend.strategies, "reverse" if mode == "auto" else mode, compiled, looped)


@functools.cache
def _keeps(name: str, strategies: tuple[str, ...], mode: str, compiled: bool, looped: bool) -> tuple[str, str] | None:
    times = {key: time for key, time in factors(name, compiled, mode).items() if key in strategies}
    if len(times) < 2:
        return None
    chosen = leanest(times, LEANER_IN_A_LOOP if looped else LEANER_WITHIN)
    compared = ", ".join(f"{key} {time:.2f}" for key, time in sorted(times.items(), key=lambda item: item[1]))
    place = ("in a loop, " if looped else "") + ("compiled" if compiled else "uncompiled")
    return chosen, f"{place}, times predicted: {compared}"


def refuse_unknown(mode: str) -> None:
    """raises  ModeError for a mode that does not exist"""
    if mode not in MODES:
        raise ModeError(f"there is no mode {mode!r}; choose one of {', '.join(map(repr, MODES))}")


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
