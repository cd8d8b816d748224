"""polyad compare: the user's own loss on every backend, as a table, JSON, a picture, and an exit code."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from polyad.comparison import compare as compare_on_backends
from polyad.comparison.picture import check as check_picture
from polyad.errors import PolyadError

from . import adapters, losses
from .conformance import enable_float64_on_jax

__all__ = ["compare"]

DTYPES = {"float64": "float64", "float32": "float32", "given": None}


def compare(
    place: Annotated[str, typer.Argument(metavar="FILE.py:LOSS", help="Where the loss is.")],
    args: Annotated[
        str | None,
        typer.Option(
            help="Its arguments, a tuple or a function that returns one: a name in the same file, or FILE.py:NAME. "
            "Without it LOSS_args or args in the file, or the defaults of the parameters."
        ),
    ] = None,
    argnums: Annotated[
        list[int] | None, typer.Option(help="Position of an argument to differentiate; may be repeated.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Its name, or theirs.module:Adapter; may be repeated.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, gpu, or as the framework names it.")] = "cpu",
    dtype: Annotated[
        str, typer.Option(help="float64, float32, or given: of the arguments, and of arrays that the loss makes.")
    ] = "float64",
    has_aux: Annotated[bool, typer.Option("--has-aux", help="The loss returns (value, aux).")] = False,
    compiled: Annotated[bool, typer.Option(help="Also compile the gradient.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write the numbers into this file.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw them into this file: PNG, SVG or PDF.")] = None,
) -> None:
    """Run a loss on every backend: do value and gradient agree, how long do they take, how much memory?

    Exit code: 0 if all that ran agree with each other and with finite differences; 1
    if not, if none ran, or if a backend asked for by name was left out; 2 for wrong
    arguments.
    """
    enable_float64_on_jax()
    _check_writable(json, "--json")
    _check_writable(picture, "--picture")
    if dtype not in DTYPES:
        raise typer.BadParameter(f"there is no {dtype!r}. Known are: {', '.join(DTYPES)}", param_hint="--dtype")
    if picture is not None:
        try:
            check_picture(picture)
        except (ImportError, PolyadError) as error:
            raise typer.BadParameter(str(error), param_hint="--picture") from error
    names = None if backend is None else [adapters.register(b) if ":" in b else b for b in backend]
    f, module = losses.loss(place)
    try:
        found = compare_on_backends(
            f,
            *losses.arguments(f, module, args),
            argnums=argnums,
            backends=names,
            device=device,
            dtype=DTYPES[dtype],
            has_aux=has_aux,
            compiled=compiled,
        )
    except PolyadError as error:
        raise typer.BadParameter(str(error)) from error
    console = Console()
    if console.is_terminal:
        console.print(found)
    else:
        console.out(str(found), highlight=False)
    if json is not None:
        found.to_json(json)
        console.out(f"json: {json}", highlight=False)
    if picture is not None:
        found.save_picture(picture)
        console.out(f"picture: {picture}", highlight=False)
    if not found.agree or (names and len(found.ran) < len(found.rows)):
        raise typer.Exit(1)


def _check_writable(file: Path | None, option: str) -> None:
    """Before the work, not after it."""
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        what = "is a folder" if file.is_dir() else f"cannot be written: there is no folder {file.parent}"
        raise typer.BadParameter(f"{file} {what}", param_hint=option)
