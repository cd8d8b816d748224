"""A loss with its arguments, and the same on a backend."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from polyad import trees
from polyad.arrays import EPSILON, dtype_name
from polyad.backends import is_array, use_backend
from polyad.backends.base import Array, Arrays, Backend
from polyad.comparison import agreement, slopes
from polyad.comparison.arguments import Arguments, host
from polyad.errors import ArgumentError, NotScalarError
from polyad.operators import value_and_gradient

__all__ = ["PATIENCE", "LeftOutError", "Placed", "Problem", "Results"]

Results = dict[str, Any]
"""ndarrays by name: "value", and the gradient in each leaf."""

PATIENCE = 60.0
"""Seconds: a gradient by forward mode that takes longer is made only where its backend was asked for."""


class LeftOutError(Exception):
    """Why a backend has no part in a comparison."""


@dataclass(frozen=True)
class Problem:
    """A loss and its arguments.

    dtype    of the floating arguments and of arrays that f makes; None: as they are
    has_aux  f returns (value, aux)
    """

    f: Callable[..., Any]
    arguments: Arguments
    dtype: str | None
    has_aux: bool

    @property
    def name(self) -> str:
        """What f is called."""
        return getattr(self.f, "__name__", None) or repr(self.f)

    @property
    def file(self) -> str:
        """Where f is written."""
        code = getattr(getattr(self.f, "__func__", self.f), "__code__", None)
        return code.co_filename if code is not None else ""

    @property
    def precision(self) -> str:
        """Of the comparison: that of the least precise leaf."""
        dtypes = [dtype_name(leaf.value.dtype) for leaf in self.arguments.moving if is_array(leaf.value)]
        return self.dtype or max(dtypes, key=lambda name: EPSILON.get(name, 1.0), default="float64")

    @property
    def limit(self) -> float:
        """The largest relative difference between two backends that is none."""
        return agreement.ALLOWED.get(self.precision, 100 * EPSILON.get(self.precision, 1.0))

    @property
    def slope_limit(self) -> float:
        """The same between a gradient and finite differences."""
        return slopes.ALLOWED.get(self.precision, 1.0)

    def differences(self, mine: Results, reference: Results) -> dict[str, float]:
        """Relative differences by name."""
        return agreement.differences(mine, reference, self.limit, EPSILON.get(self.precision, 1.0))


class Placed:
    """A problem with its arguments on a backend; a block in which f runs there.

    arrays  the moving leaves, then the other arrays
    raises  LeftOutError where it cannot be there
    """

    def __init__(self, problem: Problem, backend: Backend, device: str) -> None:
        self.problem, self.backend = problem, backend
        for home, model in problem.arguments.homes.items():
            if home != backend.name:
                raise LeftOutError(f"{model} runs on {home} alone")
        self._place = _place(backend, device)
        self._block = ExitStack()
        self._plain = True  # whether f can be evaluated outside of a derivative

    def __enter__(self) -> "Placed":
        with ExitStack() as block:
            if self.problem.dtype:
                block.enter_context(self.backend.default_precision(self.problem.dtype))
            block.enter_context(use_backend(self.backend))
            moving, fixed = self.problem.arguments.placed(self.backend, self._place, self.problem.dtype)
            self.arrays, self.n = (*moving, *fixed), len(moving)
            self._block = block.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._block.__exit__(*error)

    def loss(self, moving: Sequence[Array], fixed: Sequence[Array]) -> Array:
        """The number that f gives."""
        out = self.problem.f(*self.problem.arguments.rebuilt(moving, fixed))
        if self.problem.has_aux:
            if not (isinstance(out, tuple) and len(out) == 2):
                raise ArgumentError("compare: with has_aux=True, f must return a pair (value, aux)")
            out = out[0]
        _check_one_number(self.problem.name, out)
        return out

    def gradient(self, *arrays: Array) -> Arrays:
        """(value, *gradients) by polyad, as a function of `arrays`."""
        value, grads = value_and_gradient(self.loss, arrays[: self.n], arrays[self.n :], backend=self.backend)
        return (value, *grads)

    def results(self, found: Sequence[Array]) -> Results:
        """What `gradient` gave, by name."""
        names = ["value", *(leaf.name for leaf in self.problem.arguments.moving)]
        return dict(zip(names, map(host, found), strict=True))

    def value(self, *arrays: Array) -> float:
        """The number alone."""
        if self._plain:
            try:
                return float(host(self.loss(arrays[: self.n], arrays[self.n :])))
            except NotScalarError:
                raise
            except Exception:  # f may ask its framework for a derivative in its arguments
                self._plain = False
        return float(host(self.gradient(*arrays)[0]))

    def refuse_many_directions(self) -> None:
        """LeftOutError where the backend has forward mode alone, and the leaves have too many entries for it."""
        if "reverse" in self.backend.modes:
            return
        columns = sum(x.size for x in map(host, self.arrays[: self.n]))
        seconds = min(self._seconds() for _ in range(2))
        if columns * seconds > PATIENCE:
            raise LeftOutError(
                f"it has forward mode alone, and the gradient of {columns:,} numbers would take it about "
                f"{columns * seconds / 60:.0f} min. Name it among the backends to wait for it"
            )

    def _seconds(self) -> float:
        start = time.perf_counter()
        self.value(*self.arrays)
        return time.perf_counter() - start

    def checked(self, results: Results) -> dict[str, float | None]:
        """For each leaf how far its gradient is from finite differences; None where they see nothing."""
        xs = [host(x) for x in self.arrays[: self.n]]
        names = [leaf.name for leaf in self.problem.arguments.moving]

        def f(i: int, x: Any) -> float:
            moved = self.backend.asarray(x, None, self._place)
            return self.value(*self.arrays[:i], moved, *self.arrays[i + 1 :])

        errors = slopes.slope_errors(f, xs, [results[name] for name in names], self.problem.slope_limit)
        return dict(zip(names, errors, strict=True))

    @property
    def on_host(self) -> bool:
        """Whether its arrays lie in the memory of the process."""
        return self._place in (None, "cpu")


def _place(backend: Backend, device: str) -> Any:
    """The device as the adapter takes it; None where there is no other."""
    names = backend.devices()
    found = [name for name in names if name == device or (device == "gpu" and name != "cpu")]
    if not found:
        raise LeftOutError(f"it has no {device} here; its devices are {', '.join(names)}")
    return None if len(names) == 1 else found[0]


def _check_one_number(name: str, out: Any) -> None:
    leaves = trees.leaves(out)
    shapes = [tuple(leaf.shape) for leaf in leaves if is_array(leaf)]
    if len(leaves) == 1 and shapes in ([], [()]):
        return
    what = f"shape {shapes[0]}" if len(leaves) == 1 else f"{len(leaves)} leaves"
    cure = f"Compare lambda *args: xp.sum({name}(*args) ** 2), or another number of it"
    if isinstance(out, tuple) and len(out) == 2:
        cure += ". Or is it (value, aux)? Then type has_aux=True"
    raise NotScalarError(f"compare: {name} returned {what}; a loss is one number. {cure}")
