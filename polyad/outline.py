"""outline: a tree of arrays as text, with shapes, dtypes and counts."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from polyad.arrays import dtype_name
from polyad.backends import is_array

__all__ = ["Outline", "count", "outline", "shape_text"]


@dataclass(frozen=True)
class Outline:
    """The lines of `outline`; str() is the text."""

    lines: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def outline(tree: Any, name: str = "") -> Outline:
    """The tree of parameters or of a state, a line for each entry; print it, or look at it.

    name  of the whole, in the first line
    returns  what prints as

        2 arrays, 12 numbers, 48 bytes
        ├── weight  float32  (2, 4)  8
        └── bias    float32  (4,)    4
    """
    rows = list(_rows(tree, name))
    widths = [max((len(row[i]) for row in rows if len(row) > 1), default=0) for i in range(4)]
    return Outline(tuple(_line(row, widths) for row in rows))


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    if len(row) == 1:
        return row[0]
    place, dtype, shape, n = row
    cells = (place.ljust(widths[0]), dtype.ljust(widths[1]), shape.ljust(widths[2]), n.rjust(widths[3]))
    return "  ".join(cells).rstrip()


def _rows(tree: Any, name: str) -> Iterator[tuple[str, ...]]:
    if not isinstance(tree, Mapping | list | tuple) or _mark(tree):
        yield _leaf(name or type(tree).__name__, tree)
        return
    numbers, arrays, size = count(tree)
    title = f"{name}: " if name else ""
    yield (f"{title}{arrays} array{'s' * (arrays != 1)}, {numbers:,} number{'s' * (numbers != 1)}, {_bytes(size)}",)
    yield from _children(tree, "")


def _children(tree: Any, indent: str) -> Iterator[tuple[str, ...]]:
    entries = list(tree.items() if isinstance(tree, Mapping) else enumerate(tree))
    for i, (key, value) in enumerate(entries):
        last = i == len(entries) - 1
        place = f"{indent}{'└── ' if last else '├── '}{key}"
        if isinstance(value, Mapping | list | tuple) and not _mark(value):
            n = count(value)[0]
            yield (place, "", "", f"{n:,}") if value else (f"{place}  (empty)",)
            yield from _children(value, indent + ("    " if last else "│   "))
        else:
            yield _leaf(place, value)


def _leaf(place: str, value: Any) -> tuple[str, ...]:
    if is_array(value):
        return place, dtype_name(value.dtype), shape_text(value.shape), f"{math.prod(value.shape):,}"
    if _mark(value):
        return (f"{place}  {type(value).__name__}",)
    return (f"{place}  {value!r}",)


def _mark(node: Any) -> bool:
    """Whether it is a mark of a mode: a tuple with a name and without fields."""
    return isinstance(node, tuple) and not node and type(node) is not tuple


def shape_text(shape: Any) -> str:
    """(2, 3); () for a number."""
    return str(tuple(int(n) for n in shape))


def count(tree: Any) -> tuple[int, int, int]:
    """(numbers, arrays, bytes) of all arrays in the tree."""
    if isinstance(tree, Mapping | list | tuple):
        found = [count(value) for value in (tree.values() if isinstance(tree, Mapping) else tree)]
        return sum(f[0] for f in found), sum(f[1] for f in found), sum(f[2] for f in found)
    if not is_array(tree):
        return 0, 0, 0
    numbers = math.prod(tree.shape)
    bits = "".join(c for c in dtype_name(tree.dtype) if c.isdigit())
    return numbers, 1, numbers * (int(bits) // 8 if bits else 1)


def _bytes(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}" if unit != "bytes" else f"{size} {unit}"
        size /= 1024  # type: ignore[assignment]
    return f"{size:.3g} GiB"
