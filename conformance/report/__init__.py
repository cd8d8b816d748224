"""All outcomes of a run for a person to read: in the terminal, as JSON, Markdown and one page of HTML.

report.py    the outcomes, and what they were measured on: a Report
counts.py    how many cells of which kind, by backend and group
json.py      everything, for programs
text.py      the short table of the terminal
markdown.py  the same, and every failure, gap and skip
page.py      the matrix of backends and cases, each cell with its numbers
"""

from pathlib import Path

from .json import as_json
from .markdown import as_markdown
from .page import as_page
from .report import Report
from .text import show

__all__ = ["Report", "as_json", "as_markdown", "as_page", "show", "write"]


def write(report: Report, folder: Path) -> tuple[Path, ...]:
    """Write report.json, report.md and report.html into the folder, which is made; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in (("json", as_json), ("md", as_markdown), ("html", as_page)):
        file = folder / f"report.{name}"
        file.write_text(text(report), encoding="utf-8")
        written.append(file)
    return tuple(written)
