"""summary: the layers of a model, what comes out of each, and how many parameters it has."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyad import trees
from polyad.arrays import dtype_name, is_floating
from polyad.backends import is_array
from polyad.errors import ArgumentError
from polyad.layers.container import Container, observer
from polyad.layers.layer import Layer, Random, Tree
from polyad.outline import count, shape_text

__all__ = ["Summary", "summary"]

HEADER = ("place", "layer", "output", "dtype", "parameters", "state")


@dataclass(frozen=True)
class Summary:
    """A line for each layer, (place, layer, output, dtype, parameters, state), and the totals.

    str() is plain text; rich.print(summary) draws a table.
    """

    rows: tuple[tuple[str, ...], ...]
    totals: tuple[str, ...]

    def __str__(self) -> str:
        table = (HEADER, *self.rows, self._last)
        widths = {i: max(len(row[i]) for row in table) for i in self._shown}
        lines = [
            "  ".join(row[i].rjust(widths[i]) if i > 3 else row[i].ljust(widths[i]) for i in self._shown).rstrip()
            for row in table
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    __repr__ = __str__

    def __rich__(self) -> Any:
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=box.SIMPLE, show_footer=True)
        for i in self._shown:
            table.add_column(HEADER[i], self._last[i], justify="right" if i > 3 else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(escape(row[i]) for i in self._shown))
        return table

    @property
    def _last(self) -> tuple[str, ...]:
        return ("total", "", "", *self.totals)

    @property
    def _shown(self) -> list[int]:
        return [i for i in range(len(HEADER)) if any(row[i] for row in (*self.rows, self._last))]


def summary(
    model: Layer, params: Tree = None, state: Tree = None, input_shape: Sequence[int] | Any | None = None
) -> Summary:
    """Print the layers of a model as a table: a drawn one on a terminal, else plain text.

    params, state  None: those that `setup` would make, in float32
    input_shape    with the batch, such as (8, 2); or an array, where the input is
                   one of integers. With it the table has the shape of what comes
                   out of each layer, for which the model runs once on NumPy
    returns        the Summary, whose str() is the plain text
    raises         ArgumentError for something that is no layer; what a layer raises for the input
    """
    if not isinstance(model, Layer):
        raise ArgumentError(f"summary: {model!r} is no polyad layer. Type summary(Chain(Dense(2, 4), ...))")
    own_params, own_state = model.init(Random(0)) if params is None or state is None else (params, state)
    params, state = own_params if params is None else params, own_state if state is None else state
    outputs = {} if input_shape is None else _outputs(model, params, state, input_shape)
    rows = tuple(_rows(model, params, state, "", "", outputs))
    found = Summary(rows, (_dtypes(params, state), f"{count(params)[0]:,}", f"{count(state)[0]:,}"))
    _show(found)
    return found


def _show(found: Summary) -> None:
    if sys.stdout.isatty():
        from rich import print as rich_print

        rich_print(found)
    else:
        print(found)


def _rows(layer: Layer, params: Tree, state: Tree, place: str, indent: str, outputs: dict[str, str]) -> Any:
    inner = isinstance(layer, Container)
    name = type(layer).__name__ if inner else repr(layer)
    counts = [f"{count(part)[0]:,}" if count(part)[0] else "" for part in (params, state)]
    own = ("", "", "") if inner else (_dtypes(params, state), *counts)
    yield indent + (place.rsplit("[", 1)[-1].strip("']") or "model"), name, outputs.get(place, ""), *own
    if isinstance(layer, Container):
        for key, part in zip(layer.keys, layer.layers, strict=True):
            yield from _rows(part, params[key], state[key], f"{place}[{key!r}]", indent + "  ", outputs)


def _dtypes(*part: Tree) -> str:
    return ", ".join(dict.fromkeys(dtype_name(leaf.dtype) for leaf in trees.leaves(part) if is_floating(leaf)))


def _outputs(model: Layer, params: Tree, state: Tree, given: Any) -> dict[str, str]:
    """Shapes by the place of a layer, of a run on arrays of the same shapes."""
    numbers = np.float32 if not is_array(given) or is_floating(given) else dtype_name(given.dtype)
    x = np.zeros(tuple(given.shape if is_array(given) else given), numbers)
    found: dict[str, str] = {}
    token = observer.set(lambda place, layer, y: found.__setitem__(place, _shapes(y)))
    try:
        with np.errstate(all="ignore"):
            y, _ = model(x, *trees.map(_empty, (params, state)))
    finally:
        observer.reset(token)
    return {**found, "": _shapes(y)}


def _empty(leaf: Any) -> Any:
    """Zeros of this shape: shapes do not depend on the values."""
    if not is_array(leaf):
        return leaf
    return np.zeros(tuple(leaf.shape), np.float32 if is_floating(leaf) else dtype_name(leaf.dtype))


def _shapes(y: Any) -> str:
    if isinstance(y, tuple | list):
        return ", ".join(map(_shapes, y))
    return shape_text(y.shape) if is_array(y) else type(y).__name__
