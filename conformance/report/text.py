"""The short table of the terminal: groups by backends, then every failure in full."""

from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from ..outcome import FAILURES, Outcome
from .counts import WORDS, backends_of, counted, in_words, of_kind, place, together, worst_first
from .report import Report

__all__ = ["failure", "plain", "show", "summary"]

MOST = 20
"""Failures that are printed; a report has them all."""

COLOURS = {"ok": "green", "gap": "yellow", "skipped": "dim"} | dict.fromkeys(FAILURES, "bold red")


def summary(report: Report) -> list[tuple[str, ...]]:
    """The header, and a line for each group: what its cells are on each backend."""
    backends = backends_of(report.outcomes)
    lines = [("group", *backends)]
    for group, outcomes in together(report.outcomes, lambda o: o.group).items():
        lines.append((group, *(in_words(counted(o for o in outcomes if o.backend == b)) for b in backends)))
    return lines


def show(report: Report, console: Console) -> None:
    """Print the table, every failure, what is not installed, and the verdict."""
    if report.outcomes:
        if console.is_terminal:
            console.print(_drawn(report))
        else:
            console.out(plain(summary(report)), highlight=False)
    for outcome in report.failures[:MOST]:
        console.out(failure(outcome), highlight=False)
    if len(report.failures) > MOST:
        console.out(f"... and {len(report.failures) - MOST} more failures; --report DIR writes all", highlight=False)
    for reason in dict.fromkeys(o.reason for o in of_kind(report.outcomes, "skipped")):
        console.out(f"skipped: {reason}", highlight=False)
    for name, install in report.missing.items():
        console.out(f"{name} is not installed. Type: {install}", highlight=False)
    colour = "green" if report.conforms else "bold red"
    console.print(f"[{colour}]{escape(report.verdict)}[/] {report.seconds:.0f} s", highlight=False)


def failure(outcome: Outcome) -> str:
    """One failed cell on one line: where, what, and the numbers."""
    numbers = ""
    if outcome.difference is not None:
        allowed = "" if outcome.tolerance is None else f", {outcome.tolerance:.0e} is allowed"
        numbers = f" (difference {outcome.difference:.1e}{allowed})"
    text = " ".join((outcome.message or outcome.reason or outcome.worst).split())
    return f"{place(outcome)}: {WORDS[outcome.cell].upper()}{': ' if text else ''}{text}{numbers}"


def plain(lines: Sequence[Sequence[str]]) -> str:
    """Columns aligned by spaces."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _drawn(report: Report) -> Table:
    """The same with rules and colours."""
    backends = backends_of(report.outcomes)
    table = Table("group", *backends)
    for group, outcomes in together(report.outcomes, lambda o: o.group).items():
        table.add_row(escape(group), *(_coloured(o for o in outcomes if o.backend == b) for b in backends))
    return table


def _coloured(outcomes: Iterable[Outcome]) -> Text:
    """What the cells are, each kind in its colour."""
    words = [Text(in_words(Counter({kind: n})), COLOURS[kind]) for kind, n in worst_first(counted(outcomes))]
    return Text("\n").join(words) if words else Text("-")
