"""The report as Markdown: the summary, then every failure, gap and skip with its reason."""

import re
from collections.abc import Iterable, Iterator

from ..outcome import Outcome
from .counts import WORDS, backends_of, of_kind, together
from .report import Report
from .text import failure, summary

__all__ = ["as_markdown"]


def as_markdown(report: Report) -> str:
    """One page of GitHub's Markdown."""
    lines = ["# Conformance", "", f"**{report.verdict}**", "", *_facts(report), ""]
    if report.outcomes:
        header, *rest = summary(report)
        lines += [_row(header), _row("---" for _ in header), *map(_row, rest), ""]
    lines += _section("Failures", (f"- {_text(failure(outcome))}" for outcome in report.failures))
    lines += _section("Gaps", _by_reason(of_kind(report.outcomes, "gap")))
    lines += _section("Skipped", _by_reason(of_kind(report.outcomes, "skipped")))
    lines += _section("Not installed", (f"- {name}: `{install}`" for name, install in report.missing.items()))
    return "\n".join(lines)


def _facts(report: Report) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    yield f"- {report.date}, {report.seconds:.0f} s, `{report.command}`"
    yield f"- device: {report.where}"
    yield f"- {report.processor}, {report.platform}, Python {report.python}"
    yield f"- {versions}"


def _section(title: str, lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    return [f"## {title}", "", *lines, ""] if lines else []


def _by_reason(outcomes: Iterable[Outcome]) -> Iterator[str]:
    """A line for each reason, and below it the cells of each backend."""
    for (reason, link), group in together(outcomes, lambda o: (o.reason, o.link)).items():
        yield f"- {_text(reason or 'no reason was given')}" + _link(link)
        for backend in backends_of(group):
            cells = together((o for o in group if o.backend == backend), lambda o: (o.group, o.case, o.mode))
            yield f"  - {backend}: " + "; ".join(_cell(same) for same in cells.values())


def _link(link: str) -> str:
    if re.fullmatch(r"https?://[^\s<>]+", link):
        return f" <{link}>"
    return f" {_text(link)}" if link else ""


def _cell(same: list[Outcome]) -> str:
    """One cell in all of its precisions."""
    first = same[0]
    name = " ".join(part for part in (first.group, first.case, first.mode) if part)
    dtypes = ", ".join(dict.fromkeys(o.dtype for o in same))
    found = ", ".join(dict.fromkeys(WORDS.get(o.found, o.found) for o in same if o.found))
    return _text(f"{name} ({dtypes}{': ' + found if found else ''})")


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_text(cell) for cell in cells)} |"


def _text(text: str) -> str:
    """On one line, and with nothing that Markdown or HTML would take for itself."""
    plain = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    for sign in ("\\", "`", "*", "_", "|", "[", "]", "#"):
        plain = plain.replace(sign, f"\\{sign}")
    return plain
