"""A comparison as text: a table, why a backend was left out, and a verdict."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from polyad.comparison.measurement import Timing
from polyad.comparison.result import Comparison, Row

__all__ = ["drawn", "duration", "plain", "remarks", "size", "title", "verdict"]

HEADER = ("backend", "result", "value", "differs by", "finite diff.", "eager", "compiled", "memory")
WORDS = 2
"""Columns in front, which are words; the others are numbers."""

COLOURS = {"ok": "green", "differs": "bold red", "left out": "yellow"}


def plain(comparison: Comparison) -> str:
    """Columns aligned by spaces."""
    table = [HEADER, *(_cells(row, comparison) for row in comparison.rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = [
        "  ".join(c.ljust(w) if i < WORDS else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in table
    ]
    parts = ["\n".join(map(str.rstrip, text)), "\n".join(remarks(comparison)), verdict(comparison)]
    return "\n\n".join([title(comparison), *filter(None, parts)])


def drawn(comparison: Comparison) -> Any:
    """The same with rules and colours, for rich."""
    from rich import box
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, name in enumerate(HEADER):
        table.add_column(name.replace(" ", "\n"), justify="left" if i < WORDS else "right", overflow="fold")
    for row in comparison.rows:
        name, status, *rest = map(escape, _cells(row, comparison))
        table.add_row(name, f"[{COLOURS[row.status]}]{status}[/]", *rest)
    notes = [Text(line) for line in remarks(comparison)]
    return Group(
        Text(title(comparison)),
        table,
        *notes,
        *([Text()] if notes else []),
        Text(verdict(comparison), style="green" if comparison.agree else "bold red"),
    )


def verdict(comparison: Comparison) -> str:
    """One sentence."""
    ran = [row.backend for row in comparison.ran]
    wrong = [row.backend for row in comparison.ran if row.status == "differs"]
    if not ran:
        return "No backend ran it."
    if wrong:
        right = [name for name in ran if name not in wrong]
        others = f"; {_listed(right)} {'agrees' if len(right) == 1 else 'agree'}" if len(right) > 1 else ""
        return f"No agreement: {_listed(wrong)} {'differs' if len(wrong) == 1 else 'differ'}{others}."
    if len(ran) == 1:
        return f"{ran[0]} alone ran it, and {_confirmed(comparison)}."
    row = max(comparison.ran, key=lambda row: row.difference or 0.0)
    worst = "the value" if row.leaf == "value" else row.leaf
    most = f"within {row.difference:.1e}, worst in {worst}" if row.difference else "to the last digit"
    return f"{_listed(ran)} agree {most} ({comparison.allowed:.0e} is allowed), and {_confirmed(comparison)}."


def remarks(comparison: Comparison) -> Iterator[str]:
    """What the table has no room for."""
    for row in comparison.rows:
        if row.status == "left out":
            yield f"{row.backend} is left out{f' at {row.line}' if row.line else f': {row.reason}'}"
            if row.line:
                yield f"    {row.reason}"
        elif row.status == "differs":
            yield f"{row.backend} is not right: {row.reason}"
        elif row.backend != comparison.reference:
            where = "the value" if row.leaf == "value" else row.leaf
            most = f"most in {where}, by {row.difference:.1e}" if row.difference else "nowhere"
            yield f"{row.backend} differs from {comparison.reference} {most}"
        yield from (f"{row.backend}: {note}" for note in row.notes)
    unseen = _unseen(comparison)
    if unseen and len(unseen) < len(comparison.leaves):
        yield f"finite differences see no slope in {_listed(unseen)}: it is zero, or too small"


def duration(seconds: float) -> str:
    """ "1.23 ms"."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"
    raise AssertionError


def size(bytes: int) -> str:
    """ "12.3 MiB"; below 0.1 MiB the measurement sees nothing."""
    mebibytes = bytes / 2**20
    return "<0.1 MiB" if mebibytes < 0.1 else f"{mebibytes:.1f} MiB"


def title(comparison: Comparison) -> str:
    entries = sum(math.prod(shape) for shape in comparison.leaves.values())
    leaves = f"{len(comparison.leaves)} leaves" if len(comparison.leaves) > 1 else next(iter(comparison.leaves), "")
    return (
        f"{comparison.function}, its value and gradient in {leaves} ({entries:,} number{'s' * (entries != 1)}), "
        f"{comparison.precision}, {comparison.device}"
    )


def _cells(row: Row, comparison: Comparison) -> tuple[str, ...]:
    if row.status == "left out":
        return (row.backend, row.status, *("-" for _ in HEADER[2:]))
    is_reference = row.backend == comparison.reference
    return (
        row.backend,
        row.status,
        f"{row.value:.7g}",
        "-" if is_reference else f"{row.difference:.1e}",
        "-" if row.check is None else f"{row.check:.1e}",
        _timed(row.eager),
        _timed(row.compiled),
        "-" if row.memory is None else size(row.memory),
    )


def _timed(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    return f"{duration(timing.median)} ±{timing.spread:.0%}" if timing.runs > 1 else duration(timing.median)


def _unseen(comparison: Comparison) -> list[str]:
    """Leaves in which finite differences saw nothing on any backend."""
    return [leaf for leaf in comparison.leaves if all(row.checks.get(leaf) is None for row in comparison.ran)]


def _confirmed(comparison: Comparison) -> str:
    if len(_unseen(comparison)) == len(comparison.leaves):
        return "finite differences see no slope at all: it is zero, or too small"
    return "finite differences confirm the gradient"


def _listed(names: Sequence[str]) -> str:
    """ "numpy, jax and torch"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))
