"""What a derivative costs, in forward passes of its function: a model with few numbers, fitted to measurements.

One evaluation of f makes calls and does work on entries. Let z be its size in
entries over the size at which both take as long, so that it costs 1 + z calls.
k directions then cost

    (a + b z + s c + k d z) / (1 + z)    forward passes

a, b  calls and work of the value and of what the pass keeps of it
c     calls of a sweep, of which there are s: one a direction, or one for all
d     work of a direction

a to d are numbers of a backend, a pass and a way to take many directions, with
z as they were measured by benchmarks/costs.py on tanh networks; docs/plans.md says
how good that is. They are data: costs.json, with the date and the versions.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from polyad.backends.directions import at_once

__all__ = ["Cost", "Situation", "costs", "data", "factors", "formula", "measured"]

SCHEMA = 1


@dataclass(frozen=True)
class Situation:
    """Where a derivative runs: whether its code is compiled later, and whether it is itself differentiated."""

    compiled: bool = False
    nested: bool = False

    @property
    def name(self) -> str:
        """As costs.json has it."""
        return ("compiled" if self.compiled else "eager") + (", nested" if self.nested else "")


@dataclass(frozen=True)
class Cost:
    """A pass, how it takes many directions ("loop", "together"), and the forward passes that it is predicted to cost.

    Of one direction batching is "alone".

    Of a derivative that is differentiated the pass around is counted.
    """

    mode: str
    batching: str
    passes: float

    def __str__(self) -> str:
        way = {"alone": "", "loop": " one by one", "together": " together"}[self.batching]
        number = f"{self.passes:.3g}" if self.passes < 1000 else f"{self.passes:,.0f}"
        return f"{self.mode}{way} {number}"


@functools.cache
def data() -> Mapping[str, Any]:
    """costs.json; empty if its schema is another one."""
    found: dict[str, Any] = json.loads(resources.files("polyad").joinpath("costs.json").read_text("utf-8"))
    return found if found["schema"] == SCHEMA else {}


def formula(row: Mapping[str, Any], z: float, sweeps: int, directions: int) -> float:
    """The forward passes of a row of costs.json, as above."""
    a, b, c, d = row["coefficients"]
    return float((a + b * z + sweeps * c + directions * d * z) / (1 + z))


@functools.lru_cache(maxsize=1024)
def costs(backend: str, situation: Situation, columns: int, rows: int, size: int) -> tuple[Cost, ...]:
    """What so many columns (forward) and rows (reverse) cost, the cheapest first; () for what was not measured.

    size  entries of the largest of the arrays that f takes and returns
    """
    table = data().get("backends", {}).get(backend, {}).get(situation.name)
    if table is None:
        return ()
    found: dict[tuple[str, str], float] = {}
    z = max(size, 1) / table["even"]
    for row in table["passes"]:
        n = columns if row["mode"] == "forward" else rows
        sweeps = n if row["batching"] == "loop" else -(-n // at_once(n, size))
        batching = row["batching"] if n > 1 else "alone"  # as cheap as the cheaper of the two ways to take several
        passes = min(formula(row, z, sweeps, n), found.get((row["mode"], batching), math.inf))
        found[row["mode"], batching] = passes
    return tuple(sorted((Cost(*key, passes) for key, passes in found.items()), key=lambda cost: cost.passes))


@functools.cache
def factors(backend: str, compiled: bool, mode: str) -> Mapping[str, float]:
    """Time of a differentiated derivative by what it keeps for the pass around, in that of "taped"; {} for unknown."""
    table = data().get("backends", {}).get(backend, {}).get(Situation(compiled, True).name, {})
    found: dict[str, float] = table.get("keeps", {}).get(mode, {})
    return found


def measured(backend: str) -> str:
    """On what and when, as "torch 2.13.0, AMD EPYC, 2026-11"."""
    found = data()
    return f"{backend} {found['versions'].get(backend, '')}, {found['cpu']}, {found['date'][:7]}"
