"""The command `polyad`: which backends there are, whether they conform, and agree on a loss.

adapters.py     --backend theirs.module:Adapter
backends.py     polyad backends
compare.py      polyad compare
conformance.py  polyad conformance
losses.py       FILE.py:LOSS

This is an application, not the library: it may switch JAX to 64 bits.
"""

import sys
from collections.abc import Sequence
from typing import Any

import typer

from .backends import backends
from .compare import compare
from .conformance import conformance

__all__ = ["app", "main"]

# Plain text in place of typer's boxes: an error is one line, also in a log.
app = typer.Typer(
    help="Derivatives inside losses, on every array framework.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command()(backends)
app.command()(compare)
app.command()(conformance)

UsageError: Any = typer.BadParameter.__base__  # older versions of typer have it from another package


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; the exit code is 0, 1 for a failure, 2 for wrong arguments."""
    try:
        return int(app(args=None if args is None else list(args), prog_name="polyad", standalone_mode=False) or 0)
    except UsageError as error:
        print(f"polyad: {error.format_message()}", file=sys.stderr)
        return int(error.exit_code)
    except typer.Abort:
        print("polyad: interrupted", file=sys.stderr)
        return 130


@app.callback(invoke_without_command=True)
def _without_command(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
