"""A report as Markdown: what holds of all rows, then every row."""

import math
from collections.abc import Iterable, Iterator

from .measure import Ratio, geometric_mean
from .report import Report
from .row import Candidate, Row

__all__ = ["as_markdown", "slowest"]

HEADER = (
    "derivative; in to out, batch x width x depth",
    "where",
    "polyad",
    "forward passes",
    "polyad / best",
    "best",
    "polyad / best general",
    "best general",
    "equal programs",
    "usual / polyad",
    "usual",
    "memory, polyad / best",
)

WORDS = """\
Each row is the gradient in all parameters of mean(d^2), d being the derivative that is named and a
tanh network its function; "itself": d alone. CPU time in float32 on one thread; [quartiles] in
brackets. `best` is the fastest of all other ways, formulas for this very network included
("written out"), `best general` the fastest without those. They are chosen in rounds of their own;
then polyad and they run in random order in new rounds, until their ratios are known to 2 % or the
time of the row is over. A ratio is the median over these rounds, with the interval in which that
median lies with 95 % confidence. `equal programs` is the same ratio of the best general way and
a second copy of it: what a ratio is here by chance alone. A row counts by its median. `usual` is
the fastest way that people usually write, DeepXDE and folx included. All competitors gave the same
numbers before they were timed. Memory is that of tensors and arrays at the highest point of a call;
XLA's account where JAX is compiled."""


def as_markdown(report: Report) -> str:
    """One page of GitHub's Markdown."""
    lines = ["# Benchmarks", "", *_facts(report), "", *_summary(report), "", WORDS, ""]
    for group in dict.fromkeys(row.group for row in report.rows):
        rows = [row for row in report.rows if row.group == group and row.polyad]
        if rows:
            lines += [f"## {group[0].upper()}{group[1:]}", "", _line(HEADER), _line("---" for _ in HEADER)]
            lines += [*(_line(_cells(row)) for row in rows), ""]
    lines += _section("Disagreements and errors", report.problems)
    lines += _section("Absent", report.absent)
    return "\n".join(lines)


def slowest(report: Report, bound: float = 1.05) -> list[Row]:
    """Rows where polyad takes more than `bound` of the best, the worst first."""
    slow = (row for row in report.rows if row.by_best.median > bound)
    return sorted(slow, key=lambda row: -row.by_best.median)


def _facts(report: Report) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)
    yield f"- {report.date}, {report.seconds:.0f} s, `{report.command}`"
    yield f"- {report.processor}, {report.cores} cores, {report.platform}, Python {report.python}"
    yield f"- {versions}"


def _summary(report: Report) -> Iterator[str]:
    yield "| | rows | within 5 % | within 15 % | surely within 5 % | surely not |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for words, formulas in (("against the best of all ways", True), ("without formulas for this one network", False)):
        found = report.summary(formulas)
        shares = found.within_5, found.within_15, found.surely_5, found.surely_not_5
        yield _line((words, str(found.rows), *map(_percent, shares)))
    yield ""
    ahead = f"{found.ahead:.2f}, the geometric mean of {found.usual} rows"
    yield f"Ahead of the fastest usual way by {ahead}. Of each of them:"
    yield ""
    yield "| instead of | on | rows | its time / polyad's, geometric mean |"
    yield "| --- | --- | --- | --- |"
    ways = report.instead()
    for backend, way, rows, mean in sorted(ways, key=lambda way: -way[3]):
        yield _line((way, backend, str(rows), f"{mean:.2f}"))
    every = [mean for *_, rows, mean in ways for _ in range(rows)]
    yield _line(("all of these", "", str(len(every)), _number(geometric_mean(every))))


def _cells(row: Row) -> Iterator[str]:
    assert row.polyad is not None
    best = row.candidate(row.best)
    yield row.name
    yield row.where
    yield _time(row.polyad)
    yield f"{row.polyad.time.median / row.forward:.1f}"
    yield _ratio(row.by_best)
    yield f"{row.best} {_time(best)}" if best else ""
    yield _ratio(row.by_general)
    yield row.general
    yield _ratio(row.same)
    yield _number(row.by_usual.median)
    yield row.usual
    yield _memory(row.polyad, best)


def _time(candidate: Candidate) -> str:
    """Microseconds below ten milliseconds, with the quartiles."""
    unit, factor, digits = ("us", 1e6, 0) if candidate.time.median < 0.01 else ("ms", 1e3, 1)
    low, median, high = (
        f"{factor * x:.{digits}f}" for x in (candidate.time.low, candidate.time.median, candidate.time.high)
    )
    return f"{median} {unit} [{low}, {high}]"


def _memory(polyad: Candidate, best: Candidate | None) -> str:
    if polyad.memory is None:
        return ""
    mebibytes = f"{polyad.memory / 2**20:.2g} MiB"
    return f"{polyad.memory / best.memory:.2f} ({mebibytes})" if best and best.memory else f"({mebibytes})"


def _ratio(ratio: Ratio) -> str:
    """With its interval; bold where polyad is surely more than 5 % behind."""
    if not ratio.rounds:
        return ""
    text = _number(ratio.median)
    return f"{f'**{text}**' if ratio.low > 1.05 else text} [{ratio.low:.2f}, {ratio.high:.2f}]"


def _number(ratio: float) -> str:
    return "" if math.isnan(ratio) else f"{ratio:.2f}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{100 * share:.0f} %"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    found = [f"- {line}" for line in lines]
    return [f"## {title}", "", *found, ""] if found else []


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', ' ') for cell in cells)} |"
