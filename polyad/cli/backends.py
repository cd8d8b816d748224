"""polyad backends: what is installed, on what it computes, and what it does itself."""

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from polyad.backends import BackendInfo, get
from polyad.backends import backends as all_backends

__all__ = ["backends"]

HEADER = ("backend", "installed", "version", "devices", "passes", "inner derivatives", "has")


def backends() -> None:
    """List the backends that polyad knows: version, devices, and what they do themselves.

    Passes are those of the framework; the other one is derived. Inner derivatives
    are kept for the pass around in one of these ways. Exit code: 1 if a backend
    is installed and does not load.
    """
    lines, notes, failed = [], [], False
    for info in all_backends():
        cells = ("-",) * 4
        if not info.installed:
            notes.append(f"{info.name} is not installed. Type: {info.install}")
        else:
            try:
                cells = _loaded(info)
            except Exception as error:  # an adapter or its framework may raise anything
                notes.append(f"{info.name} does not load. {type(error).__name__}: {error}")
                failed = True
        lines.append((info.name, "yes" if info.installed else "no", info.version or "-", *cells))
    _show(lines, Console())
    for note in notes:
        typer.echo(note)
    if failed:
        raise typer.Exit(1)


def _loaded(info: BackendInfo) -> tuple[str, str, str, str]:
    """Devices, passes, strategies, and which of vmap and jit the framework brings."""
    from polyad.backends.base import Backend

    backend = get(info.name)
    extras = {"vmap": type(backend).batch is not Backend.batch, "jit": backend.compiles}
    own = ", ".join(name for name, there in extras.items() if there)
    return ", ".join(backend.devices()), ", ".join(backend.modes), ", ".join(backend.strategies), own or "-"


def _show(lines: Sequence[Sequence[str]], console: Console) -> None:
    if console.is_terminal:
        table = Table()
        for name in HEADER:
            table.add_column(name, overflow="fold")
        for line in lines:
            table.add_row(*map(escape, line), style=None if line[1] == "yes" else "dim")
        console.print(table)
        return
    widths = [max(map(len, column)) for column in zip(HEADER, *lines, strict=True)]
    for line in (HEADER, *lines):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
