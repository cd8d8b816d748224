"""What a way is, and how a module lists its ways."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Absent", "Tag", "Way", "Ways"]

Tag = Literal["by hand", "formula", "usual", "library"]
"""By hand: what a good engineer tries, for any network. Formula: the derivative of this very network,
written out. Usual: what people write. Library: another one does it, as people use it."""


class Absent(Exception):  # noqa: N818 # it is no error that a library is not installed
    """The library of this way is not installed."""


@dataclass(frozen=True)
class Way:
    """A function of the framework, of its parameters and points, that gives a quantity or a whole step.

    whole     it is the gradient of the loss itself, not the quantity in it
    where     of a problem: whether this way is worth its time there
    compiled  whether it is tried compiled, on a backend where that takes long
    """

    name: str
    run: Callable[..., Any]
    tag: Tag
    whole: bool
    where: Callable[[Any], bool]
    compiled: bool


class Ways:
    """The ways of a framework by the name of the quantity."""

    def __init__(self) -> None:
        self._ways: dict[str, list[Way]] = {}

    def __call__(
        self,
        quantity: str,
        name: str,
        tag: Tag = "by hand",
        *,
        whole: bool = False,
        where: Callable[[Any], bool] = lambda problem: True,
        compiled: bool = False,
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: one more way to this quantity."""

        def add(run: Callable[..., Any]) -> Callable[..., Any]:
            self._ways.setdefault(quantity, []).append(Way(name, run, tag, whole, where, compiled))
            return run

        return add

    def trace(
        self, name: str, tag: Tag = "by hand", *, forward: bool = False, compiled: bool = False
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: a way to v^T J v. Where polyad may choose the pass, as in jvp, all ways compete; beside a
        vjp that was asked for those stand that pull, too, not those that go forward."""

        def add(run: Callable[..., Any]) -> Callable[..., Any]:
            for quantity in ("trace by jvp", "trace by vjp")[: 1 if forward else 2]:
                self(quantity, name, tag, compiled=compiled)(run)
            return run

        return add

    def of(self, quantity: str, problem: Any) -> Iterator[Way]:
        for way in self._ways.get(quantity.removesuffix(", undivided"), ()):  # another way of polyad to the same
            if way.where(problem) and (problem.nested or not way.whole):
                yield way


def small(entries: int) -> Callable[[Any], bool]:
    """Where one point has at most so many inputs."""
    return lambda problem: problem.size.inputs <= entries
