"""What `polyad --help` says, of every command, where a page has the line `<!-- commands -->`."""

import contextlib
import io
import os
from typing import Any

import typer

from polyad.cli import app, main

MARK = "<!-- commands -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Hook of MkDocs."""
    if MARK not in markdown:
        return markdown
    commands: Any = typer.main.get_command(app)
    parts = [_help(), *(f"## polyad {name}\n\n{_help(name)}" for name in commands.commands)]
    return markdown.replace(MARK, "\n\n".join(parts))


def _help(*words: str) -> str:
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "80"
    try:
        with contextlib.redirect_stdout(printed):
            main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    typed = " ".join(("polyad", *words, "--help"))
    return f"```console\n$ {typed}\n{printed.getvalue().strip()}\n```"
