"""What derivatives inside of a vmap leave to be compared, where the values of single points cannot be looked at.

A pass of jets is compared with the framework's own first derivative (by_jets.py). Inside of a
vmap of the framework that answer is one for each point, and only the vmap can read it. So it
runs f at all points first, where such derivatives say that they have a doubt and compare
nothing; then at a few points, where they compare; and if one of these differs, at all points
again, without jets. f sees one point each time, whatever their number.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from polyad.arrays import is_floating, xp
from polyad.backends.base import Arrays, Backend
from polyad.steps import forgotten

__all__ = ["Doubt", "doubt", "settled"]

Groups = tuple[Arrays, Arrays]


class Doubt:
    """What a vmap asks of the derivatives in its function.

    leaves   whether they leave their comparison to it
    refuses  whether jets were seen to be wrong
    raised   whether one of them had something to compare
    found    whether one differs at any point, arrays of shape ()
    """

    def __init__(self, leaves: bool = False, refuses: bool = False) -> None:
        self.leaves, self.refuses, self.raised = leaves, refuses, False
        self.found: list[Any] = []

    def compare(self, backend: Backend, differ: Any) -> None:
        """Take notice of what a derivative says of each point."""
        self.found.append(backend.anywhere(differ))


_around: ContextVar[Doubt | None] = ContextVar("polyad_doubt", default=None)


def doubt(backend: Backend, value: Any) -> Doubt | None:
    """That of the vmap around, if it hides this value, and what goes wrong with jets there is not loud by itself."""
    found = _around.get()
    return found if found is not None and backend.lets_jets_through and not backend.concrete(value) else None


def settled(backend: Backend, everywhere: Callable[[], Groups], few: Callable[[], Any] | None) -> Groups:
    """everywhere(), which is f at all points, by jets only where they are right.

    few  f at a few of the points; None where all are few, which are compared at once
    """
    around = _around.get()
    if around is not None and (around.leaves or around.refuses):
        return everywhere()
    with _entered(Doubt(leaves=few is not None)) as this:
        groups = everywhere()
    if this.raised and few is not None:
        with _entered(Doubt()) as this, backend.untracked():
            few()
    if not this.found:
        return groups
    differ = xp.any(xp.stack(this.found))
    if not backend.concrete(differ):  # in a trace
        return tuple(tuple(y * xp.where(differ, xp.nan, 1.0) if is_floating(y) else y for y in ys) for ys in groups)  # type: ignore[return-value]
    if not bool(differ):
        return groups
    forgotten()
    with _entered(Doubt(refuses=True)):
        return everywhere()


@contextmanager
def _entered(this: Doubt) -> Iterator[Doubt]:
    token = _around.set(this)
    try:
        yield this
    finally:
        _around.reset(token)
