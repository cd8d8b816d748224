"""The table of what is differentiated rightly, as Markdown: `python -m polyad_conformance.operations`."""

import importlib.metadata
import platform
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from typing import get_args

from ..outcome import Cell, Outcome
from . import OPERATIONS
from .arrays import ARRAYS
from .functions import FUNCTIONS
from .matrices import MATRICES
from .standard import OUT_OF_SCOPE
from .witness import WITNESS

__all__ = ["table"]

_SECTIONS = (
    ("Functions of numbers, and operators", FUNCTIONS),
    ("Moving entries, reductions, indexing", ARRAYS),
    ("Products and linear algebra", MATRICES),
)
_HEAD = """# What is differentiated

Every differentiable function of the array API 2024.12, and polyad's own, in nine modes on
each backend: forward, reverse, RoR, FoR, RoF, FoF, RRR (R a reverse pass, F a forward one,
the outer one first), vmap and jit. `yes` says that the value and the derivatives of every
mode agree with the witness, {witness}, to 1e-10 of the largest
entry, in float64, after a call at another point, twice. Otherwise the modes that fail are
named; the reasons are below. jit is there on JAX only, where all modes of an operation are
compiled as one function. Inner derivatives keep the framework's own graph
(`nested_switching("off")`): the strategies are another table.

Written by `python -m polyad_conformance.operations > docs/coverage.md`, {date}: {versions}.
"""


def table(outcomes: Iterable[Outcome], backends: Sequence[str]) -> str:
    """The page, from the cells of all operations on these backends."""
    cells: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        cells[outcome.case, outcome.backend].append(outcome)
    found = [outcome for group in cells.values() for outcome in group]
    parts = [_HEAD.format(witness=WITNESS, date=date.today().isoformat(), versions=_versions(backends))]
    parts.append(_counts(found, backends))
    for title, operations in _SECTIONS:
        rows = [[f"`{o.name}`", *(_words(cells[o.name, backend]) for backend in backends)] for o in operations]
        parts.append(f"## {title}\n\n{_grid(['', *backends], rows)}")
    parts.append(f"## What fails, and what to type instead\n\n{_reasons(found)}")
    parts.append(f"## What has no derivative here\n\n{_out_of_scope()}")
    return "\n".join(parts)


def _versions(backends: Sequence[str]) -> str:
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in backends) + (
        f", Python {platform.python_version()}, {platform.machine()}"
    )


def _counts(found: Sequence[Outcome], backends: Sequence[str]) -> str:
    kinds = [cell for cell in get_args(Cell) if any(outcome.cell == cell for outcome in found)]
    rows = [
        [kind, *(str(sum(o.cell == kind and o.backend == backend for o in found)) for backend in backends)]
        for kind in kinds
    ]
    return f"{len(OPERATIONS)} operations; cells:\n\n{_grid(['', *backends], rows)}"


def _words(cells: Sequence[Outcome]) -> str:
    """What one backend does with one operation."""
    failing = [o.mode for o in cells if o.cell not in ("ok", "skipped")]
    present = [o.mode for o in cells if o.cell != "skipped"]
    if not cells:
        return "not run"
    if not failing:
        return "yes"
    kinds = "/".join(sorted({o.found or o.cell for o in cells if o.mode in failing}))
    return f"{kinds} in {'every mode' if failing == present else ', '.join(failing)}"


def _reasons(found: Sequence[Outcome]) -> str:
    reasons: dict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    for o in found:
        if o.cell not in ("ok", "skipped"):
            reasons[o.backend, o.reason or o.message.splitlines()[0], o.link][f"`{o.case}`"] = None
    rows = [
        [backend, ", ".join(cases), f"{reason} ([source]({link}))" if link else reason]
        for (backend, reason, link), cases in reasons.items()
    ]
    return _grid(["backend", "operations", "reason"], rows) if rows else "Nothing.\n"


def _out_of_scope() -> str:
    names: dict[str, list[str]] = defaultdict(list)
    for name, reason in OUT_OF_SCOPE.items():
        names[reason].append(f"`{name}`")
    return _grid(["reason", "names of the standard"], [[reason, ", ".join(some)] for reason, some in names.items()])


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
