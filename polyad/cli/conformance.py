"""polyad conformance: the suite on backends, as a table, a report, and an exit code."""

import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from polyad.backends import backends as all_backends

from . import adapters

__all__ = ["check_writable", "chosen", "conformance", "enable_float64_on_jax"]


def conformance(
    backend: Annotated[
        list[str] | None, typer.Option(help="Its name, or theirs.module:Adapter; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or gpu.")] = "cpu",
    group: Annotated[list[str] | None, typer.Option(help="Only this group of cases; may be repeated.")] = None,
    case: Annotated[
        list[str] | None, typer.Option(help="Only cases of this name, or pattern with *; may be repeated.")
    ] = None,
    dtype: Annotated[list[str] | None, typer.Option(help="float64 or float32; may be repeated.")] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write report.html, report.md and report.json into this folder.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes that run it.")] = 1,
    list_: Annotated[bool, typer.Option("--list", help="Print the cases and run none.")] = False,
) -> None:
    """Run every case on every backend against witnesses that use no automatic differentiation.

    Exit code: 0 if every cell that was run is ok or a documented gap, 1 if not, or
    if a backend asked for by name is not installed, 2 for wrong arguments.
    """
    enable_float64_on_jax()
    from polyad_conformance import report as reports
    from polyad_conformance import runner

    groups = chosen("--group", group, runner.GROUPS)
    dtypes = chosen("--dtype", dtype, runner.DTYPES)
    (device,) = chosen("--device", [device], runner.DEVICES)
    if list_:
        _print_cases(runner, groups)
        return
    names, missing = _backends(backend)
    cells = runner.run(
        names if jobs == 1 else _places(backend, names), groups, dtypes, device, jobs=jobs, cases=case or ()
    )
    if case and names and not len(cells):
        raise typer.BadParameter(f"no case is named {' or '.join(case)}; --list prints all", param_hint="--case")
    check_writable(report)

    start = time.perf_counter()
    outcomes = _in_order(_watched(cells, len(cells)), groups, names)
    found = reports.Report.of(
        outcomes,
        missing=missing,
        device=device,
        command=_command(
            {"backend": backend, "group": group, "case": case, "dtype": dtype},
            {"device": None if device == "cpu" else device, "jobs": None if jobs == 1 else jobs, "report": report},
        ),
        seconds=time.perf_counter() - start,
    )
    console = Console()
    reports.show(found, console)
    if report is not None:
        written = reports.write(found, report)
        console.out(f"report: {', '.join(map(str, written))}", highlight=False)
    if not found.conforms or (backend and missing):
        raise typer.Exit(1)


def enable_float64_on_jax() -> None:
    """Without it JAX computes in float32 whatever is asked; a library must not decide that, an application may."""
    os.environ["JAX_ENABLE_X64"] = "1"
    if "jax" in sys.modules:  # too late for the variable
        sys.modules["jax"].config.update("jax_enable_x64", True)


def _backends(given: Sequence[str] | None) -> tuple[list[str], list[Any]]:
    """(names of those that are here, what is known of the others)."""
    names = [adapters.register(name) if ":" in name else name for name in given or ()]
    known = {info.name: info for info in all_backends()}
    found = [known[name] for name in chosen("--backend", names, known)]
    return [info.name for info in found if info.installed], [info for info in found if not info.installed]


def _places(given: Sequence[str] | None, names: Sequence[str]) -> list[str]:
    """Names, and places for adapters of other people, which another process has not registered."""
    place_of = {adapters.register(place): place for place in given or () if ":" in place}
    return [place_of.get(name, name) for name in names]


def chosen(option: str, given: Sequence[str] | None, known: Iterable[str]) -> list[str]:
    """What was given, once each, in the order given; all without any. An unknown name is a wrong argument."""
    known = list(known)
    for name in given or ():
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise typer.BadParameter(f"there is no {name!r}.{hint} Known are: {', '.join(known)}", param_hint=option)
    return list(dict.fromkeys(given or known))


def check_writable(folder: Path | None) -> None:
    """Before the work, not after it."""
    if folder is None:
        return
    if folder.exists() and not folder.is_dir():
        raise typer.BadParameter(f"{folder} is a file; give the name of a folder", param_hint="--report")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"cannot make the folder {folder}: {error.strerror}", param_hint="--report") from error
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"cannot write to {folder}", param_hint="--report")


def _print_cases(runner: Any, groups: Sequence[str]) -> None:
    """One case a line, the group first, so that grep finds it."""
    for group in groups:
        for case in runner.listed(group):
            tags = f"  [{', '.join(sorted(case.tags))}]" if case.tags else ""
            typer.echo(f"{group}: {case.name}  ({case.source}){tags}")


def _watched(cells: Iterable[Any], total: int) -> list[Any]:
    """The outcomes, with a bar on stderr where a person looks at it, and nothing in a log."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    outcomes, failed = [], 0
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)
        for outcome in cells:
            outcomes.append(outcome)
            failed += outcome.failed
            text = f"{f'[bold red]{failed} failed[/] ' if failed else ''}{outcome.backend}, {outcome.group}"
            bar.update(task, advance=1, description=text)
    return outcomes


def _in_order(outcomes: list[Any], groups: Sequence[str], backends: Sequence[str]) -> list[Any]:
    """Group by group, backend by backend, whichever process was done first."""
    rank = {name: i for i, name in enumerate(backends)}  # an adapter may bear another name than it is known by
    return sorted(outcomes, key=lambda o: (groups.index(o.group), rank.get(o.backend, len(rank))))


def _command(several: Mapping[str, Sequence[str] | None], single: Mapping[str, Any]) -> str:
    """What a person types to get the same."""
    given = [(name, value) for name, values in several.items() for value in values or ()]
    given += [(name, str(value)) for name, value in single.items() if value is not None]
    return shlex.join(["polyad", "conformance", *(word for name, value in given for word in (f"--{name}", value))])
