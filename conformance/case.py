"""What a case is: something to ask, inputs, and what the answer must be, found without polyad."""

import functools
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["TOLERANCE", "Case", "UnlikeError", "numbers", "refused", "roughly"]

TOLERANCE: Mapping[str, float] = {"float64": 1e-10, "float32": 1e-4}


@dataclass(frozen=True)
class Case:
    """A question to a backend, with an independent answer.

    ask        (*inputs) -> a tree of arrays, written in polyad. It runs inside of
               use_backend(adapter), which current() gives, and is asked three
               times: once at another point, then twice at the inputs
    inputs     trees of ndarrays, float64 where they are floating
    expected   (*inputs) -> the same tree, in plain NumPy: a closed form, or complex
               steps through one
    loss       (*inputs) -> one number, whose gradient in the inputs, but for leading ones
               that are constants, is the second entry of what ask gives: central
               differences are then a second witness
    source     of the formula
    tolerance  by dtype: largest difference allowed, relative to the largest entry of
               the leaf
    compiled   whether ask goes through the compiler of the backend. Not where
               exceptions, state or values that are looked at are what it is about
    needs      of the passes, "forward" and "reverse", those that the backend must
               have itself
    dtypes     in which it is asked: in float64 alone where it is about trees and not numbers
    """

    group: str
    name: str
    ask: Callable[..., Any]
    inputs: tuple[Any, ...]
    expected: Callable[..., Any]
    loss: Callable[..., Any] | None = None
    source: str = "a closed form"
    tags: frozenset[str] = frozenset()
    tolerance: Mapping[str, float] = field(default_factory=lambda: TOLERANCE)
    compiled: bool = True
    needs: frozenset[str] = frozenset()
    dtypes: tuple[str, ...] = tuple(TOLERANCE)

    @functools.cached_property
    def answer(self) -> Any:
        """The tree that is expected at the inputs."""
        return self.expected(*self.inputs)


class UnlikeError(AssertionError):
    """What was asked did not do what it must, where that is no number."""


def refused(call: Callable[[], Any], error: type[Exception], *words: str) -> None:
    """Run the call, which must raise this error with all of these words in its message.

    words   regular expressions, in any order
    raises  UnlikeError where nothing was raised, or another error
    """
    try:
        result = call()
    except Exception as caught:
        if not isinstance(caught, error):
            raise UnlikeError(f"raised {type(caught).__name__}: {caught}; expected {error.__name__}") from caught
        missing = [word for word in words if not re.search(word, " ".join(str(caught).split()))]
        if missing:
            raise UnlikeError(f"{error.__name__} does not say {missing}: {caught}") from caught
        return
    raise UnlikeError(f"nothing was raised; expected {error.__name__}. It returned {_short(result)}")


def _short(x: Any) -> str:
    text = " ".join(repr(x).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def numbers(place: str, *shape: int) -> np.ndarray:
    """Between 0.2 and 1.2 in size, of either sign, the same on every machine.

    No entry is so small that a wrong gradient could hide in it, and each one is
    a float32, so that both precisions see the same point.
    """
    key = np.random.SeedSequence(1, spawn_key=(zlib.crc32(place.encode()),))
    uniform = 2 * np.random.Generator(np.random.Philox(key)).random(shape, dtype=np.float32) - 1
    return np.copysign(np.abs(uniform) + np.float32(0.2), uniform).astype(np.float64)


def roughly(float64: float, float32: float | None = None) -> dict[str, float]:
    """A tolerance of its own for a case."""
    return {"float64": float64, "float32": TOLERANCE["float32"] if float32 is None else float32}
