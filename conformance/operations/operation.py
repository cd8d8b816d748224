"""What an operation is, as data: a function of the array API, and points inside its domain."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Domain = Callable[[np.ndarray], np.ndarray]
Points = tuple[np.ndarray, ...]

__all__ = [
    "Argument",
    "Domain",
    "Operation",
    "apart",
    "between",
    "definite",
    "offset",
    "points",
    "regular",
    "signed",
]

SIZES: Mapping[str, int] = {"b": 2, "k": 2, "m": 2, "n": 3}
"""Sizes of the axes in the matrix: no two axes of one operation alike, and few entries."""


@dataclass(frozen=True)
class Argument:
    """Shape and domain of an argument.

    shape   names of the axes; a number is itself, "n+1" one more than n, and
            "..." any axes that broadcast with those of the other arguments
    domain  numbers between -1 and 1 -> points where the function is smooth
    """

    shape: str
    domain: Domain

    def sizes(self, sizes: Mapping[str, int], batch: tuple[int, ...] = ()) -> tuple[int, ...]:
        """The shape, where "..." is batch."""
        out: list[int] = []
        for axis in self.shape.split():
            name, _, more = axis.partition("+")
            if name == "...":
                out.extend(batch)
            else:
                out.append((int(name) if name.isdigit() else sizes[name]) + int(more or 0))
        return tuple(out)


@dataclass(frozen=True)
class Operation:
    """A function f(xp, *xs) of arrays to one array, where xp is any array-API namespace.

    name     what a person would type, unique; up to the first "(" or space it is what the standard calls it
    covers   names of the standard that it stands for, where its own name does not say it
    curved   whether the result is cubed: for functions whose second or third derivative is zero
    smallest size of the axes that have a name
    batches  what "..." stands for in the matrix, for each argument
    """

    name: str
    f: Callable[..., Any]
    arguments: tuple[Argument, ...]
    covers: tuple[str, ...] = ()
    curved: bool = True
    smallest: int = 1
    batches: tuple[tuple[int, ...], ...] = ()

    def __call__(self, xp: Any, *xs: Any) -> Any:
        """The function that is differentiated."""
        y = self.f(xp, *xs)
        return y * y * y if self.curved else y

    @property
    def standard(self) -> tuple[str, ...]:
        """Names of the standard that this entry covers."""
        return self.covers or (self.name.split("(")[0].split(" ")[0],)

    def shapes(self, sizes: Mapping[str, int] = SIZES, batches: Any = None) -> list[tuple[int, ...]]:
        """Shapes of the arguments."""
        batches = batches or self.batches or ((),) * len(self.arguments)
        return [argument.sizes(sizes, batch) for argument, batch in zip(self.arguments, batches, strict=True)]

    def points(self, uniform: Points) -> Points:
        """Numbers between -1 and 1 as points of the domain; each one is a float32, so that both precisions see it."""
        made = [argument.domain(u) for argument, u in zip(self.arguments, uniform, strict=True)]
        return tuple(x.astype(np.float32).astype(np.float64) for x in made)


def uniform(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers between -1 and 1, the same on every machine."""
    seed = np.random.SeedSequence(2, spawn_key=(zlib.crc32(key.encode()),))
    return 2 * np.random.Generator(np.random.Philox(seed)).random(shape) - 1


def points(operation: Operation, place: str) -> Points:
    """A point of the domain; place names it."""
    shapes = operation.shapes()
    return operation.points(tuple(uniform(f"{operation.name}/{place}/{i}", shape) for i, shape in enumerate(shapes)))


# Domains.


def between(low: float, high: float) -> Domain:
    """Numbers between these."""
    return lambda u: low + (high - low) * (u + 1) / 2


def signed(low: float, high: float) -> Domain:
    """Numbers of either sign, between these in size."""
    return lambda u: np.copysign(low + (high - low) * np.abs(u), u)


def offset(u: np.ndarray) -> np.ndarray:
    """Between -3 and 3, at least 0.1 away from every multiple of 1/2."""
    x = 3 * u
    return np.floor(x) + 0.1 + 0.3 * (x - np.floor(x))


def apart(u: np.ndarray) -> np.ndarray:
    """Numbers of either sign, no two of them near each other, none near 0."""
    n = np.arange(1, u.size + 1).reshape(u.shape)
    x = 2 * (n * 0.6180339887498949 % 1) - 1 + 0.01 * u
    return x + np.copysign(0.1, x)


def regular(u: np.ndarray) -> np.ndarray:
    """Matrices of full rank, with different singular values."""
    return definite(u) + 0.3 * np.sign(np.arange(u.shape[-1]) - np.arange(u.shape[-2])[:, None])


def definite(u: np.ndarray) -> np.ndarray:
    """Matrices whose symmetric part has the eigenvalues 1, 1.7, 2.4, ..., about."""
    rows, columns = u.shape[-2:]
    return np.eye(rows, columns) * (1 + 0.7 * np.arange(columns)) + 0.08 * u
