"""polyad bench: polyad against what people write by hand, as a table, plots and JSON."""

import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .conformance import check_writable, chosen

__all__ = ["bench"]


def bench(
    backend: Annotated[list[str] | None, typer.Option(help="Only this backend; may be repeated.")] = None,
    group: Annotated[list[str] | None, typer.Option(help="Only this group of derivatives; may be repeated.")] = None,
    compiled: Annotated[
        bool | None, typer.Option("--compiled/--eager", help="Only compiled rows, or only the others.")
    ] = None,
    name: Annotated[str, typer.Option(help="Only rows of this name, or pattern with *.")] = "*",
    quick: Annotated[bool, typer.Option(help="A few rows, in a quarter of the time each.")] = False,
    rounds: Annotated[int, typer.Option(min=4, help="At most so many rounds a row.")] = 41,
    report: Annotated[
        Path | None, typer.Option(help="Write benchmarks.json, benchmarks.md and plots into this folder.")
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the rows and run none.")] = False,
) -> None:
    """Time and memory of polyad in units of the best that is written by hand with each framework.

    On one thread, in processes of their own. What is not installed is left out and
    said. Exit code: 0 whatever the ratios are; 1 if a competitor gave other numbers
    than polyad, or raised; 2 for wrong arguments.
    """
    from polyad_benchmarks import plots, runner, table
    from polyad_benchmarks.report import Report
    from polyad_benchmarks.workload import BACKENDS, GROUPS, select

    chosen_backends = chosen("--backend", backend, BACKENDS)
    workloads = select(chosen_backends, chosen("--group", group, GROUPS), compiled=compiled, quick=quick, name=name)
    if not workloads:
        raise typer.BadParameter("there is no such row; --list prints all", param_hint="--name")
    if list_:
        for workload in workloads:
            typer.echo(f"{workload.group}: {workload.name}  ({workload.where})")
        return
    check_writable(report)
    installed = _installed(chosen_backends)
    start = time.perf_counter()
    some = [workload for workload in workloads if workload.backend in installed]
    rows = _watched(runner.run(some, rounds=rounds, quick=quick), len(some))
    rows.sort(key=lambda row: GROUPS.index(row.group))
    options = {"backend": backend, "group": group, "name": [name] if name != "*" else None}
    flags = ["--quick"] * quick + ([] if compiled is None else ["--compiled" if compiled else "--eager"])
    found = Report.of(rows, command=_command(options, flags), seconds=time.perf_counter() - start)
    typer.echo(table.as_markdown(found))
    if report is not None:
        found.write(report / "benchmarks.json")
        (report / "benchmarks.md").write_text(table.as_markdown(found), encoding="utf-8")
        plots.draw(found, report)
    if found.problems:
        raise typer.Exit(1)


def _installed(names: Sequence[str]) -> set[str]:
    """Those of them that are here."""
    from polyad.backends import backends

    return {info.name for info in backends() if info.installed and info.name in names}


def _watched(rows: Iterable[Any], total: int) -> list[Any]:
    """The rows, with a bar on stderr where a person looks at it, and nothing in a log."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    found = []
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        for row in rows:
            found.append(row)
            bar.update(task, advance=1, description=f"{row.where}, {row.name}")
    return found


def _command(several: dict[str, list[str] | None], flags: list[str]) -> str:
    """What a person types to get the same."""
    given = [word for name, values in several.items() for value in values or () for word in (f"--{name}", value)]
    return shlex.join(["polyad", "bench", *given, *flags])
