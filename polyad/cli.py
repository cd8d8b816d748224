"""The command `polyad`: which backends there are, and whether they conform.

This is an application, not the library: it may switch JAX to 64 bits.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from polyad.backends import BackendInfo
from polyad.backends import backends as all_backends

__all__ = ["app", "main"]

# Plain text in place of typer's boxes: an error is one line, also in a log.
app = typer.Typer(
    help="Derivatives inside losses, on every array framework.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)

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


@app.command()
def backends() -> None:
    """List the backends that polyad knows, installed or not."""
    console = Console()
    lines = [(b.name, "yes" if b.installed else "no", b.version or "-", b.install) for b in all_backends()]
    header = ("backend", "installed", "version", "how to install")
    if console.is_terminal:
        table = Table(*header)
        for line in lines:
            table.add_row(*map(escape, line), style=None if line[1] == "yes" else "dim")
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in (header, *lines):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@app.command()
def conformance(
    backend: Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; may be repeated.")] = None,
    case: Annotated[list[str] | None, typer.Option(help="Only this example; may be repeated.")] = None,
    json: Annotated[Path | None, typer.Option(help="Also write every number to this file.")] = None,
) -> None:
    """Run the documented examples on every backend against an independent reference.

    Exit code: 0 if everything that was run conforms, 1 if not, or if a backend
    asked for by name is not installed, 2 for wrong arguments.
    """
    enable_float64_on_jax()
    from polyad_conformance import (  # type: ignore[import-not-found]  # mypy misses packages installed in place
        cases,
        report,
        runner,
    )

    known = {info.name: info for info in all_backends()}
    chosen = [known[name] for name in _chosen("--backend", backend, known)]
    dtypes = _chosen("--dtype", dtype, runner.DTYPES)
    names = _chosen("--case", case, [c.name for c in cases.CASES])
    _check_writable(json)

    missing = [info for info in chosen if not info.installed]
    present = [info.name for info in chosen if info.installed]
    cells = [(c, b, d) for c in cases.CASES if c.name in names for b in present for d in dtypes]
    with _progress(len(cells)) as advance:
        results = [advance(runner.run(*cell)) for cell in cells]
    report.show(report.rows(results, missing), dtypes[0], Console())
    if json is not None:
        json.write_text(report.as_json(results, missing))
    asked_in_vain = bool(backend) and bool(missing)
    if asked_in_vain or not results or not all(result.passed for result in results):
        raise typer.Exit(1)


def enable_float64_on_jax() -> None:
    """Without it JAX computes in float32 whatever is asked; a library must not decide that, an application may."""
    os.environ["JAX_ENABLE_X64"] = "1"
    if "jax" in sys.modules:  # too late for the variable
        sys.modules["jax"].config.update("jax_enable_x64", True)


def _chosen(option: str, given: Sequence[str] | None, known: Sequence[str] | dict[str, BackendInfo]) -> list[str]:
    """What was given, once each, in the order given; all without any. An unknown name is a wrong argument."""
    for name in given or ():
        if name not in known:
            close = get_close_matches(name, list(known), 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise typer.BadParameter(f"there is no {name!r}.{hint} Known are: {', '.join(known)}", param_hint=option)
    return list(dict.fromkeys(given or known))


def _check_writable(file: Path | None) -> None:
    """Before the work, not after it."""
    if file is None:
        return
    if file.is_dir():
        raise typer.BadParameter(f"{file} is a folder; give the name of a file", param_hint="--json")
    if not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise typer.BadParameter(f"cannot write to {file}", param_hint="--json")


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on stderr where a person looks at it, and nothing in a log."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("conformance", total=total)

        def advance(result: Any) -> Any:
            bar.advance(task)
            return result

        yield advance
