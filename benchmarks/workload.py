"""Which derivatives at which sizes: one Workload is one row of the table."""

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .problem import Problem, Size
from .ways import Way, framework

__all__ = ["BACKENDS", "GROUPS", "WORKLOADS", "Workload", "select"]

BACKENDS = ("numpy", "autograd", "jax", "torch")


@dataclass(frozen=True)
class Workload:
    """A quantity on a backend at a size, eager or compiled.

    forward, polyad and the values of `ways` build functions without arguments, which
    wait for their result: a forward pass written by hand, which is the unit; polyad's
    gradient of the loss, or the quantity itself where it is not nested; and what others
    write for the same.

    quick    it is in a quick run too
    budget   seconds for its times
    """

    group: str
    quantity: str
    backend: str
    compiled: bool
    size: Size
    coupled: bool = False
    nested: bool = True
    dtype: str = "float32"
    quick: bool = False
    budget: float = 3.0

    @property
    def name(self) -> str:
        return f"{self.quantity}{'' if self.nested else ', itself'}, {self.size}"

    @property
    def where(self) -> str:
        return f"{self.backend}, {'compiled' if self.compiled else 'eager'}"

    @cached_property
    def _framework(self) -> Any:
        problem = Problem(self.backend, self.size, self.dtype, self.coupled, self.nested)
        return framework(problem, self.compiled)

    def forward(self) -> Callable[[], Any]:
        return self._framework.forward()

    def polyad(self) -> Callable[[], Any]:
        """Raises Absent where polyad has no way to compile on this backend."""
        return self._framework.polyad(self.quantity)

    def ways(self) -> dict[str, tuple[Way, Callable[[], Callable[[], Any]]]]:
        return self._framework.ways(self.quantity)

    def peak(self, call: Callable[[], Any]) -> int | None:
        """Bytes at the highest point of a call; None where that cannot be said."""
        return self._framework.peak(call)


def _workloads() -> Iterable[Workload]:
    """The places are those of `_on`; a * after one: also in a quick run."""
    mlp, wide = Size(2, 1, 1024, 64), Size(2, 1, 4096, 128)

    group = "first order"
    yield from _on("torch* torch+ jax jax+* autograd*", group, "output", mlp)
    yield from _on("torch jax+ autograd", group, "output", wide)

    group = "input gradient"
    yield from _on("torch* torch+ jax jax+* autograd*", group, "input gradient", mlp)
    yield from _on("torch jax+ autograd", group, "input gradient", wide)
    yield from _on("torch jax+", group, "input gradient", Size(32, 4, 256, 64))

    group = "Jacobian of rows"
    yield from _on("torch* torch+ jax jax+* autograd*", group, group, Size(3, 3, 1024, 64))
    yield from _on("torch jax+ autograd", group, group, Size(2, 16, 1024, 64))
    yield from _on("torch jax+ autograd", group, group, Size(32, 4, 256, 64))
    for size in (
        Size(1, 1, 1024, 64),
        Size(16, 16, 128, 64),
        Size(3, 3, 256, 256),
        Size(3, 3, 1024, 16),
        Size(64, 1, 256, 64),
        Size(1, 64, 256, 64),
        Size(3, 3, 64, 32, 2),
    ):
        yield from _on("torch jax+", group, group, size)
    yield from _on("numpy*", group, group, Size(3, 3, 1024, 64), nested=False)
    yield from _on("numpy", group, group, Size(2, 16, 1024, 64), nested=False)
    yield from _on("numpy", group, group, Size(32, 4, 256, 64), nested=False)

    group = "Jacobian of a batch"
    yield from _on("torch* torch+ jax+* autograd", group, group, Size(2, 2, 10, 4, 1), coupled=True)
    for size in (Size(3, 3, 32, 64, 2), Size(2, 16, 16, 64, 2), Size(16, 2, 16, 64, 2)):
        yield from _on("torch jax+ autograd", group, group, size, coupled=True)

    group = "loop"
    yield from _on("torch jax+ autograd", group, group, mlp)
    yield from _on("torch jax+", group, group, Size(2, 1, 64, 32, 2))

    group = "Laplacian"
    yield from _on("torch* torch+ jax jax+* autograd*", group, group, mlp)
    yield from _on("torch jax+ autograd", group, group, Size(10, 1, 1024, 64), budget=6.0)
    yield from _on("torch jax+ autograd", group, group, Size(100, 1, 128, 64), budget=6.0)
    yield from _on("numpy*", group, group, mlp, nested=False)
    yield from _on("numpy", group, group, Size(10, 1, 1024, 64), nested=False)
    yield from _on("numpy", group, group, Size(100, 1, 128, 64), nested=False)

    group = "Jacobian in parameters"
    yield from _on("torch* torch+ jax+* autograd*", group, group, Size(1, 1, 16, 12, 3))
    yield from _on("torch jax+ autograd", group, group, Size(2, 1, 128, 32, 3))
    yield from _on("torch jax+", group, group, Size(3, 3, 64, 32, 2))
    yield from _on("torch jax+ autograd", group, f"{group}, undivided", Size(2, 1, 128, 32, 3))

    group = "trace"
    for quantity in ("trace by vjp", "trace by jvp"):
        yield from _on("torch* jax+* autograd", group, quantity, Size(4, 4, 1024, 64))
        yield from _on("torch jax+ autograd", group, quantity, Size(32, 32, 1024, 64))
    yield from _on("torch+", group, "trace by vjp", Size(4, 4, 1024, 64))
    yield from _on("numpy*", group, "trace by jvp", Size(32, 32, 1024, 64), nested=False)

    group = "third order"
    yield from _on("torch* torch+ jax+* autograd*", group, group, Size(1, 1, 1024, 64))
    yield from _on("torch* jax+* autograd", group, "third derivative at a point", Size(1, 1, 1, 12, 3))
    yield from _on("numpy", group, "third derivative at a point", Size(1, 1, 1, 12, 3), nested=False)

    group, small = "tiny", Size(3, 1, 16, 12, 3)
    yield from _on("torch* jax* jax+* autograd numpy", group, "output", small, nested=False)
    yield from _on("torch* torch+* jax* jax+* autograd", group, "output", small)
    yield from _on("torch* jax* jax+* autograd numpy", group, "input gradient", small, nested=False)
    yield from _on("torch* torch+ jax+* autograd", group, "input gradient", small)
    yield from _on("torch* jax jax+* autograd numpy", group, "Jacobian of rows", Size(3, 3, 16, 12, 3), nested=False)
    yield from _on("torch* jax+ autograd", group, "Jacobian of rows", Size(3, 3, 16, 12, 3))
    yield from _on("torch* jax jax+* autograd numpy", group, "Jacobian of a batch", Size(3, 3, 1, 8, 2), nested=False)
    yield from _on("torch jax+ autograd", group, "Jacobian of a batch", Size(3, 3, 1, 8, 2))
    yield from _on("torch jax+", group, "Laplacian", Size(2, 1, 16, 12, 3))
    yield from _on("torch jax+", group, "trace by vjp", Size(4, 4, 12, 12, 3))


def _on(places: str, group: str, quantity: str, size: Size, **rest: Any) -> Iterable[Workload]:
    """One for each place: the name of a backend, + where it is compiled, * where it is in a quick run."""
    for place in places.split():
        backend = place.rstrip("+*")
        yield Workload(group, quantity, backend, "+" in place, size, quick="*" in place, **rest)


WORKLOADS = tuple(_workloads())
GROUPS = tuple(dict.fromkeys(workload.group for workload in WORKLOADS))


def select(
    backends: Sequence[str] = (),
    groups: Sequence[str] = (),
    *,
    compiled: bool | None = None,
    quick: bool = False,
    name: str = "*",
) -> tuple[Workload, ...]:
    """Those on these backends and of these groups, or of all; of a quick run some, in a quarter of the time."""
    found = (
        workload
        for workload in WORKLOADS
        if (not backends or workload.backend in backends)
        and (not groups or workload.group in groups)
        and compiled in (None, workload.compiled)
        and (workload.quick or not quick)
        and fnmatch.fnmatch(workload.name, name)
    )
    return tuple(replace(workload, budget=workload.budget / 4) if quick else workload for workload in found)
