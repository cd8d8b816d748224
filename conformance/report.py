"""All results as one table, example by backend, or as JSON with what they were measured on."""

import datetime
import importlib.metadata
import json
import math
import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import polyad
from polyad.backends import BackendInfo, backends

from .runner import DTYPES, Result

__all__ = ["Row", "as_json", "plain", "rich_table", "rows", "show"]

HEADER = ("example", "backend", *DTYPES, "differences", "time", "result")
LEGEND = (
    "float64, float32: largest difference to a reference derived by hand, of the value and of the gradients in\n"
    "parameters and inputs, relative to the largest entry of each; differences: to central differences, float64;\n"
    "time: value and gradients, median of five calls, not compiled, {precision}."
)


@dataclass(frozen=True)
class Row:
    """One line of the table: a case on a backend, in every precision that was run."""

    cells: tuple[str, ...]
    passed: bool
    failures: tuple[str, ...]


def rows(results: Iterable[Result], missing: Iterable[BackendInfo]) -> list[Row]:
    """Results of one case and backend side by side, then a line for each backend that is not installed."""
    groups: dict[tuple[str, str], dict[str, Result]] = {}
    for result in results:
        groups.setdefault((result.case, result.backend), {})[result.dtype] = result
    return [*(_row(*key, found) for key, found in groups.items()), *map(_missing, missing)]


def _row(case: str, backend: str, found: dict[str, Result]) -> Row:
    passed = all(result.passed for result in found.values())
    double = found.get("float64")
    cells = (
        case,
        backend,
        *(_number(found[dtype].difference if dtype in found else None) for dtype in DTYPES),
        _number(double.finite_differences if double else None),
        _milliseconds(next(iter(found.values())).seconds),
        "passed" if passed else "FAILED",
    )
    failures = tuple(f"{case}, {backend}, {dtype}: {text}" for dtype, r in found.items() for text in r.failures)
    return Row(cells, passed, failures)


def _missing(backend: BackendInfo) -> Row:
    cells = ("(none was run)", backend.name, *("-" for _ in range(len(HEADER) - 3)), "not installed")
    return Row(cells, False, (f"{backend.name} is not installed. Type: {backend.install}",))


def _number(x: float | None) -> str:
    return "-" if x is None else f"{x:.1e}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.1f} ms"


# The table, in colour for a person and in plain text for a file or a pipe.


def show(table: Sequence[Row], precision: str, console: Console) -> None:
    """Print the table, what its columns mean, and every failure in full."""
    if console.is_terminal:
        console.print(rich_table(table))
    else:
        console.out(plain(table), highlight=False)
    console.out(LEGEND.format(precision=precision), highlight=False)
    for failure in (text for row in table for text in row.failures):
        console.out(failure, highlight=False)


def plain(table: Sequence[Row]) -> str:
    """Columns aligned by spaces: names to the left, numbers to the right."""
    lines = [HEADER, *(row.cells for row in table)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(_aligned(line, widths)).rstrip() for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for name, cell, width in zip(HEADER, line, widths, strict=True):
        yield cell.rjust(width) if _is_number(name) else cell.ljust(width)


def _is_number(column: str) -> bool:
    return column in (*DTYPES, "differences", "time")


def rich_table(table: Sequence[Row]) -> Table:
    """The same with rules, and the last column green, red or yellow."""
    drawn = Table(title="polyad: documented examples on every backend")
    for name in HEADER:
        # On a narrow terminal the long names fold, and no digit is lost.
        fold = name == "example"
        justify: Any = "right" if _is_number(name) else "left"
        drawn.add_column(name, justify=justify, no_wrap=not fold, overflow="fold" if fold else "ellipsis")
    for row in table:
        *cells, outcome = row.cells
        colour = "green" if row.passed else "red" if outcome == "FAILED" else "yellow"
        drawn.add_row(*cells, f"[{colour}]{outcome}[/]")
    return drawn


# JSON.


def as_json(results: Iterable[Result], missing: Iterable[BackendInfo]) -> str:
    """Every cell with its numbers, the versions, the date and the machine."""
    report = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": "cpu",
        "processor": processor(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "not_installed": [backend.name for backend in missing],
        "cells": [_cell(result) for result in results],
    }
    return json.dumps(report, indent=2, allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """Of polyad, of every installed backend, and of what both stand on."""
    found = {info.name: info.version for info in backends() if info.version}
    stands_on = {name: importlib.metadata.version(name) for name in ("array-api-compat", "numpy", "optree")}
    return {"polyad": polyad.__version__, **stands_on, **found}


def processor() -> str:
    """Its name where the system tells; else the architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cell(result: Result) -> dict[str, Any]:
    fields = {name: _finite(x) for name, x in asdict(result).items()}
    return {**fields, "passed": result.passed}


def _finite(x: Any) -> Any:
    """JSON has no NaN and no infinity; the failure says in words what was found."""
    return None if isinstance(x, float) and not math.isfinite(x) else x
