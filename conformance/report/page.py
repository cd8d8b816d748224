"""The report as one page of HTML that needs nothing else: no file, no network, no framework.

The tables are there without any script; the script filters them and opens a
cell to its numbers, which the page holds as JSON, each string once.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from ..outcome import FAILURES, Outcome
from .counts import WORDS, backends_of, counted, of_kind, place, together, worst_first
from .json import kept
from .report import Report

__all__ = ["as_page"]

FIRST_FAILURES, MOST_FAILURES = 20, 500
"""That stand there at once, and that are listed at all; every one is in its table."""
MOST_TEXT = 2000
"""Characters of one message; report.json has all of them."""

MODES = ("forward", "reverse", "RoR", "FoR", "RoF", "FoF", "RRR", "vmap", "jit")
MEANINGS = {
    "ok": "agrees with every witness",
    "gap": "known and documented, in the framework or in polyad",
    "skipped": "was not run, for the reason given",
    "wrong": "another number",
    "silent zero": "zero, where the derivative is not",
    "raises": "an error in place of a number",
    "unexpected pass": "a documented gap that is no longer there",
}


def as_page(report: Report) -> str:
    """The whole page."""
    groups = tuple(together(report.outcomes, lambda o: o.group))
    return Template(_file("page.html")).substitute(
        title=escape(f"polyad {report.versions['polyad']}: conformance, {report.date[:10]}"),
        version=escape(report.versions["polyad"]),
        verdict=escape(report.verdict),
        conforms="conforms" if report.conforms else "failed",
        facts="\n".join(f"<dt>{escape(name)}</dt><dd>{text}</dd>" for name, text in _facts(report)),
        summary=_summary(report),
        legend=_legend(),
        failures=_failures(report.failures),
        groups=_options(groups),
        backends=_options(backends_of(report.outcomes)),
        matrix="\n".join(_matrices(report.outcomes)),
        gaps=_reasons("Gaps", of_kind(report.outcomes, "gap")),
        skips=_reasons("Skipped", of_kind(report.outcomes, "skipped")),
        outcomes=_data(report.outcomes),
        style=_file("page.css"),
        script=_file("page.js"),
    )


def _file(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _facts(report: Report) -> Iterator[tuple[str, str]]:
    """(name, HTML) of what the run was measured on."""
    date, time = report.date[:10], report.date[11:16]
    yield "date", f'<time datetime="{escape(report.date)}">{escape(f"{date} {time} UTC")}</time>'
    yield "device", escape(report.where)
    yield "processor", escape(f"{report.processor}, {report.platform}")
    versions = {"python": report.python, **report.versions}
    yield "versions", escape(", ".join(f"{name} {version}" for name, version in versions.items()))
    yield "command", f"<code>{escape(report.command)}</code>, {report.seconds:.0f} s"
    for name, install in report.missing.items():
        yield "not installed", f"{escape(name)}: <code>{escape(install)}</code>"


def _options(names: Iterable[str]) -> str:
    return "".join(f"<option>{escape(name)}</option>" for name in names)


def _chip(kind: str, text: str = "") -> str:
    return f'<i class="{WORDS[kind]}">{escape(text or WORDS[kind])}</i>'


def _legend() -> str:
    items = "".join(f"<li>{_chip(kind)} {escape(meaning)}</li>" for kind, meaning in MEANINGS.items())
    return f'<ul class="legend" aria-label="What the words mean">{items}</ul>'


# The summary, and what is not ok.


def _summary(report: Report) -> str:
    backends = backends_of(report.outcomes)
    body = []
    for group, outcomes in together(report.outcomes, lambda o: o.group).items():
        cells = (worst_first(counted(o for o in outcomes if o.backend == b)) for b in backends)
        texts = (" ".join(_chip(kind, f"{n} {WORDS[kind]}") for kind, n in cell) or "-" for cell in cells)
        body.append(_row(group, (f"<td>{text}</td>" for text in texts)))
    return _table("Cells by group and backend", backends, body, 'class="summary"', unseen=True)


def _failures(outcomes: Sequence[Outcome]) -> str:
    """Each with its message; nothing where there are none."""
    if not outcomes:
        return ""
    items = [
        f"<li>{_chip(o.cell)} {escape(place(o))}{_numbers(o)}<pre>{escape(_cut(o.message or o.reason))}</pre></li>"
        for o in outcomes[:MOST_FAILURES]
    ]
    body = f'<ul class="reasons">{"".join(items[:FIRST_FAILURES])}</ul>'
    if items[FIRST_FAILURES:]:
        more = "".join(items[FIRST_FAILURES:])
        body += (
            f"<details><summary>{len(outcomes) - FIRST_FAILURES} more failures</summary>"
            f'<ul class="reasons">{more}</ul></details>'
        )
    if outcomes[MOST_FAILURES:]:
        body += f"<p>The last {len(outcomes) - MOST_FAILURES} are in the tables below and in report.json.</p>"
    return _section("Failures", body)


def _numbers(o: Outcome) -> str:
    if o.difference is None:
        return ""
    allowed = "" if o.tolerance is None else f", {o.tolerance:.0e} is allowed"
    return f" (difference {o.difference:.1e}{allowed})"


def _reasons(title: str, outcomes: Sequence[Outcome]) -> str:
    """Each reason, and behind it the cells that share it."""
    items = []
    for (reason, link), shared in together(outcomes, lambda o: (o.reason, o.link)).items():
        there = f" {_link(link)}" if link else ""
        cells = "".join(f"<li>{escape(place(o))}{escape(': ' + o.found if o.found else '')}</li>" for o in shared)
        summary = f"{len(shared)} cell{'' if len(shared) == 1 else 's'}: {', '.join(backends_of(shared))}"
        items.append(
            f"<li>{escape(reason or 'no reason was given')}{there}"
            f'<details class="cells"><summary>{escape(summary)}</summary><ul>{cells}</ul></details></li>'
        )
    return _section(title, f'<ul class="reasons">{"".join(items)}</ul>') if items else ""


def _link(link: str) -> str:
    text = escape(link)
    return f'<a href="{text}">{text}</a>' if link.startswith(("http://", "https://")) else text


def _section(title: str, body: str) -> str:
    name = title.lower()
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>{body}</section>'


# The matrix.


def _matrices(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """A section for each group: cases by backends, or operations by modes for each backend."""
    numbered = {id(o): i for i, o in enumerate(outcomes)}
    for group, inside in together(outcomes, lambda o: o.group).items():
        tables = _by_modes(inside, numbered) if any(o.mode for o in inside) else [_by_backends(inside, numbered)]
        name = escape(group, quote=True)
        yield (
            f'<section class="group matrix" data-group="{name}"><h3>{name}</h3>'
            + "".join(f'<div class="scroll">{table}</div>' for table in tables)
            + "</section>"
        )


def _by_backends(outcomes: Iterable[Outcome], numbered: dict[int, int]) -> str:
    outcomes = tuple(outcomes)
    columns = backends_of(outcomes)
    group = outcomes[0].group
    heads = [f'<th scope="col" data-backend="{escape(b)}">{escape(b)}</th>' for b in columns]
    body = _rows(outcomes, columns, lambda o: o.backend, numbered)
    return _table(f"{group}: cases by backends", heads, body, 'class="cases"', first="case", unseen=True)


def _by_modes(outcomes: Sequence[Outcome], numbered: dict[int, int]) -> Iterator[str]:
    seen = dict.fromkeys(o.mode for o in outcomes)
    columns = (*(m for m in MODES if m in seen), *(m for m in seen if m not in MODES))
    heads = [f'<th scope="col">{escape(m or "value")}</th>' for m in columns]
    for backend, inside in together(outcomes, lambda o: o.backend).items():
        body = _rows(inside, columns, lambda o: o.mode, numbered)
        yield _table(backend, heads, body, f'data-backend="{escape(backend)}"', first="operation")


def _rows(outcomes: Iterable[Outcome], columns: Sequence[str], column: Any, numbered: dict[int, int]) -> Iterator[str]:
    for case, row in together(outcomes, lambda o: o.case).items():
        cells = together(row, column)
        found = " ".join(_words(row))
        yield _row(case, (_cell(cells.get(name, ()), numbered) for name in columns), f' data-k="{found}"')


def _cell(outcomes: Sequence[Outcome], numbered: dict[int, int]) -> str:
    """A button with the words of all precisions and devices: one word where they agree, and the largest difference."""
    if not outcomes:
        return "<td></td>"
    words = _words(outcomes)
    text = words[0] if len(words) == 1 else "".join(f'<i class="{word}">{word}</i>' for word in words)
    if len(words) == 1 and not any(o.mode for o in outcomes):
        text += _largest(outcomes)
    kind = f' class="{words[0]}"' if len(words) == 1 else ""
    places = " ".join(str(numbered[id(o)]) for o in outcomes)
    return f'<td data-k="{" ".join(words)}"><button tabindex="-1"{kind} data-o="{places}">{text}</button></td>'


def _largest(outcomes: Sequence[Outcome]) -> str:
    """The largest difference in the precision that has the smallest tolerance."""
    strict = min(o.tolerance or 0.0 for o in outcomes)
    found = [o.difference for o in outcomes if o.difference is not None and (o.tolerance or 0.0) == strict]
    return f"<small>{max(found):.0e}</small>".replace("0e+00", "0") if found else ""


def _words(outcomes: Iterable[Outcome]) -> list[str]:
    return [WORDS[kind] for kind, _ in worst_first(counted(outcomes))]


def _table(
    caption: str,
    columns: Iterable[str],
    body: Iterable[str],
    attributes: str = "",
    first: str = "group",
    unseen: bool = False,
) -> str:
    """Columns are names, or the header cells themselves; an unseen caption repeats what stands above."""
    heads = (c if c.startswith("<th") else f'<th scope="col">{escape(c)}</th>' for c in columns)
    hide = ' class="unseen"' if unseen else ""
    return (
        f"<table {attributes}><caption{hide}>{escape(caption)}</caption>"
        f'<thead><tr><th scope="col">{first}</th>{"".join(heads)}</tr></thead>'
        f"<tbody>\n{chr(10).join(body)}\n</tbody></table>"
    )


def _row(name: str, cells: Iterable[str], attributes: str = "") -> str:
    breaking = escape(name).replace("_", "_<wbr>")
    return f'<tr{attributes}><th scope="row">{breaking}</th>{"".join(cells)}</tr>'


# What the script reads.


def _data(outcomes: Iterable[Outcome]) -> str:
    """Outcomes whose strings are [place in a list], as JSON that cannot end the script element."""
    strings: dict[str, int] = {}

    def short(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.3g}")
        text = ", ".join(value) if isinstance(value, tuple) else _cut(value)
        return [strings.setdefault(text, len(strings))]

    rows = [{key: short(value) for key, value in kept(o.json()).items()} for o in outcomes]
    kinds = {"failed": [WORDS[kind] for kind in WORDS if kind in FAILURES], "gap": ["gap"], "skipped": ["skip"]}
    found = {"words": WORDS, "kinds": kinds, "strings": list(strings), "outcomes": rows}
    return json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]} ... ({len(text)} characters; report.json has all)"
