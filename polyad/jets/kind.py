"""What the jets of one pushforward carry, and the algebra of it.

Every jet has a primal, at most one part with k directions in front, and parts
of the shape of the primal, where None is zero:

                 tangent          plain
FirstOrder       (k, *shape)      ()
Laplacian        (k, *shape)      (Laplacian,)
Taylor           None             (c_1, ..., c_K)

Linear functions map each part by itself, so they need not know the kind. What
is not linear is here: functions of numbers, products, and how a rule that
knows first derivatives only is lifted to the kind.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from polyad.jets.trail import UNSEEN, Trail

if TYPE_CHECKING:
    from polyad.jets.elementwise import Elementwise

Parts = tuple[Any, ...]

__all__ = ["Kind", "Level", "Parts"]

_numbers = itertools.count(1)


def _always() -> bool:
    return True


class Kind(ABC):
    """The algebra of one kind of jets."""

    @abstractmethod
    def elementwise(self, level: Level, f: Elementwise, args: tuple[Any, ...]) -> Any:
        """A function of numbers on arguments of which some are jets of this level."""

    @abstractmethod
    def bilinear(
        self,
        level: Level,
        a: Any,
        b: Any,
        f: Callable[[Any, Any], Any],
        left: Callable[[Any, Any], Any],
        right: Callable[[Any, Any], Any],
    ) -> Any:
        """f(a, b), linear in each.

        left   f of every direction of a, (k, *a.shape), with b
        right  f of a with every direction of b
        """

    @abstractmethod
    def multilinear(self, level: Level, args: list[Any], f: Callable[..., Any], along: Callable[..., Any]) -> Any:
        """f(*args), linear in each.

        along  along(places, sum_up, *args): args[i] for i in places have a leading axis k, which the
               result has too, or is summed over
        """

    @abstractmethod
    def solution(self, level: Level, a: Any, b: Any) -> Any:
        """The y of a @ y = b; b is a matrix or a batch of them."""

    @abstractmethod
    def inverse(self, level: Level, x: Any) -> Any:
        """The y of x @ y = 1."""

    @abstractmethod
    def pulled(self, level: Level, cotangents: Sequence[Parts], pull: Callable[..., Any]) -> list[Any]:
        """The jets of the gradient, from the pullback of the parts: see pullback.py."""

    @abstractmethod
    def derived(self, level: Level, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What follows from a rule that knows tangents only."""


class Level(int):
    """The number of a pushforward, above every one that is running in any thread, and its kind.

    plain       how many parts of the shape of the primal its jets have
    directions  how many directions their tangents have, 0 without tangents
    trail       what its jets went through
    records     whether the framework keeps the graph of their parts, which it did where f was called
    host        whether NumPy may be what computes their parts
    """

    kind: Kind
    plain: int
    directions: int
    trail: Trail
    records: Callable[[], bool]
    host: bool

    def __new__(cls, kind: Kind, plain: int = 0, directions: int = 0, trail: Trail = UNSEEN) -> Level:
        level = super().__new__(cls, next(_numbers))
        level.kind, level.plain, level.directions, level.trail = kind, plain, directions, trail
        level.records, level.host = _always, True
        return level
