"""The matrix: each operation in each mode on each backend, a cell each.

A cell runs at another point first, then twice at the point: a cache that
remembers values gives itself away. Nothing raises; what is raised is a cell.
"""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from polyad import convert, nested_switching, xp
from polyad.backends import get
from polyad.backends.base import Backend

from ..gaps import Gap, against
from ..modes import MODES, leaf_names, unavailable
from ..outcome import Cell, Outcome
from . import OPERATIONS
from .gaps import OPERATION_GAPS
from .operation import Operation, Points, points, uniform
from .witness import WITNESS, Derivatives, derivatives, value

__all__ = ["TOLERANCE", "cells", "compared", "operations_matrix"]

TOLERANCE: Mapping[str, float] = {"float64": 1e-10, "float32": 2e-3}
"""Largest difference to the witness, as a share of the largest entry of the leaf."""

Leaves = tuple[np.ndarray, ...]


def operations_matrix(
    backends: Sequence[str | Backend],
    modes: Sequence[str] = tuple(MODES),
    operations: Sequence[Operation] = OPERATIONS,
    dtypes: Sequence[str] = ("float64",),
    device: Any = None,
    gaps: Sequence[Gap] = OPERATION_GAPS,
) -> Iterator[Outcome]:
    """The cells, one operation after the other: len(operations) * len(backends) * len(dtypes) * len(modes).

    backends  names or adapters
    device    as the backends call it; None is what they take by themselves
    gaps      what is known to fail: a cell of them is a gap if it does, else an unexpected pass
    """
    adapters = [get(backend) for backend in backends]
    for operation in operations:
        for adapter in adapters:
            for dtype in dtypes:
                for outcome in cells(operation, adapter, modes, dtype, device):
                    yield against(gaps, outcome)


def cells(
    operation: Operation, backend: Backend, modes: Sequence[str], dtype: str = "float64", device: Any = None
) -> Iterator[Outcome]:
    """The cells of one operation on one backend, whatever is known of them."""
    reasons = {mode: unavailable(mode, backend) for mode in modes}
    present = [mode for mode in modes if not reasons[mode]]
    start = time.perf_counter()
    # Compiled, a mode by itself takes a second, and all of them together as well.
    compiles = backend.compiles and not backend.eager and len(present) > 1
    with nested_switching("off"):  # the framework untouched; the strategies have cases of their own
        together = _together(operation, backend, present, dtype, device) if compiles else {}
    seconds = (time.perf_counter() - start) / max(1, len(present))
    for mode in modes:
        start = time.perf_counter()
        if reasons[mode]:
            found: dict[str, Any] = {"cell": "skipped", "reason": reasons[mode]}
        elif mode in together:
            found = _judged(operation, mode, *together[mode], dtype)
        else:
            with nested_switching("off"):
                found = _alone(operation, backend, mode, dtype, device)
        yield Outcome(
            group="operations",
            case=operation.name,
            backend=backend.name,
            dtype=dtype,
            device=str(device or "cpu"),
            mode=mode,
            seconds=time.perf_counter() - start + (seconds if mode in together else 0.0),
            tolerance=TOLERANCE[dtype],
            witness=WITNESS,
            tags=operation.standard,
            **found,
        )


def _alone(operation: Operation, backend: Backend, mode: str, dtype: str, device: Any) -> dict[str, Any]:
    """What one mode gives, by itself."""
    try:
        here, there, v, c = convert(_places(operation), backend, dtype=dtype, device=device)
        f = functools.partial(operation, xp)
        call = MODES[mode](f, v, c, backend)
        first, second = _twice(lambda a, b: call(*_arguments(mode, a, b)), here, there)
    except Exception as error:  # a backend may raise anything
        return {"cell": "raises", "message": f"{type(error).__name__}: {error}"}
    return _judged(operation, mode, first, second, dtype)


def _together(
    operation: Operation, backend: Backend, modes: Sequence[str], dtype: str, device: Any
) -> dict[str, tuple[Leaves, Leaves]]:
    """What all modes give, compiled as one function; nothing where one of them raises."""
    try:
        here, there, v, c = convert(_places(operation), backend, dtype=dtype, device=device)
        f = functools.partial(operation, xp)
        calls = {mode: MODES[mode](f, v, c, backend) for mode in modes}
        n, lengths = len(here), {}

        def every(*points: Any) -> tuple[Any, ...]:
            leaves: list[Any] = []
            for mode, call in calls.items():
                found = call(*_arguments(mode, points[:n], points[n:]))
                lengths[mode] = len(found)
                leaves.extend(found)
            return tuple(leaves)

        fast = backend.compile(every)
        first, second = map(iter, _twice(lambda a, b: fast(*a, *b), here, there))
    except Exception:  # which mode it was, each of them says by itself
        return {}
    return {
        mode: (tuple(itertools.islice(first, k)), tuple(itertools.islice(second, k))) for mode, k in lengths.items()
    }


def _arguments(mode: str, here: Any, there: Any) -> tuple[Any, ...]:
    """What the mode is called with at this point: of a batch, the other point is the second row."""
    return tuple(xp.stack(pair) for pair in zip(here, there, strict=True)) if mode == "vmap" else tuple(here)


def _twice(call: Callable[[Any, Any], Any], here: Any, there: Any) -> tuple[Leaves, Leaves]:
    """What the call gives at the point, twice, after one at the other point."""
    call(there, there)
    first, second = (tuple(np.asarray(y) for y in convert(tuple(call(here, there)), "numpy")) for _ in range(2))
    return first, second


def _judged(operation: Operation, mode: str, first: Leaves, second: Leaves, dtype: str) -> dict[str, Any]:
    names = leaf_names(mode, len(operation.arguments))
    result = compared(first, _expected(operation, mode), names, dtype)
    if result["cell"] == "ok" and not all(map(np.array_equal, first, second)):
        return {**result, "cell": "wrong", "message": "the second call at the same point gives another result"}
    return result


@cache
def _places(operation: Operation) -> tuple[Points, Points, Points, np.ndarray]:
    """(a point, another one, directions, a cotangent)."""
    here, there = points(operation, "here"), points(operation, "there")
    v = tuple(_number(f"{operation.name}/v/{i}", x.shape) for i, x in enumerate(here))
    return here, there, v, _number(f"{operation.name}/c", value(operation, here).shape)


def _number(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers of either sign, none near zero, each one a float32."""
    u = uniform(key, shape)
    return np.copysign(0.2 + np.abs(u), u).astype(np.float32).astype(np.float64)


@cache
def _derivatives(operation: Operation, place: int) -> Derivatives:
    *places, v, c = _places(operation)
    return derivatives(operation, places[place], v, c)


def _expected(operation: Operation, mode: str) -> Leaves:
    found = _derivatives(operation, 0)
    if mode == "vmap":
        other = _derivatives(operation, 1)
        pairs = zip((found.value, *found.gradient), (other.value, *other.gradient), strict=True)
        return tuple(np.stack(pair) for pair in pairs)
    if mode == "forward":
        return found.value, found.along
    if mode == "FoF":
        return (found.bent,)
    if mode == "RRR":
        return found.third
    return (found.value, *found.gradient) if mode in ("reverse", "jit") else found.hessian


def compared(actual: Leaves, expected: Leaves, names: Sequence[str], dtype: str) -> dict[str, Any]:
    """The fields of the Outcome that say whether these leaves are those."""
    if len(actual) != len(expected):
        return {"cell": "wrong", "message": f"{len(actual)} results in place of {len(expected)}"}
    scale = max(float(np.max(np.abs(e), initial=0.0)) for e in expected)
    if not scale:
        raise ValueError("every expected number is zero: nothing can be compared with it")
    worst, difference = "", 0.0
    for a, e, name in zip(actual, expected, names, strict=True):
        if a.shape != e.shape or a.dtype != dtype:
            return {
                "cell": "wrong",
                "worst": name,
                "message": f"{name} is {a.dtype} of shape {a.shape}, not {dtype} of {e.shape}",
            }
        size = float(np.max(np.abs(e), initial=0.0)) or scale
        off = float(np.max(np.abs(a - e), initial=0.0)) / size
        if not off <= difference:  # a NaN counts as the largest
            worst, difference = name, off
    if difference <= TOLERANCE[dtype]:
        return {"cell": "ok", "difference": difference, "worst": worst}
    zero: Cell = "wrong"
    if any(np.any(e) and not np.any(a) for a, e in zip(actual, expected, strict=True)):
        zero = "silent zero"
    message = f"{worst} differs from the witness by {difference:.1e}; {TOLERANCE[dtype]:.0e} is allowed"
    return {"cell": zero, "difference": difference, "worst": worst, "message": message}
