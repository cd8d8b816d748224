"""The matrix: each operation in each mode on each backend, a cell each.

A cell runs at another point first, then twice at the point: a cache that
remembers values gives itself away. Nothing raises; what is raised is a cell.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from polyad import convert, xp
from polyad.backends import get
from polyad.backends.base import Backend

from ..modes import MODES, leaf_names, unavailable
from ..outcome import Cell, Outcome
from . import OPERATIONS
from .operation import Operation, Points, points, uniform
from .witness import WITNESS, Derivatives, derivatives, value

__all__ = ["TOLERANCE", "operations_matrix"]

TOLERANCE: Mapping[str, float] = {"float64": 1e-10, "float32": 2e-3}
"""Largest difference to the witness, as a share of the largest entry of the leaf."""

Leaves = tuple[np.ndarray, ...]


def operations_matrix(
    backends: Sequence[str | Backend],
    modes: Sequence[str] = tuple(MODES),
    operations: Sequence[Operation] = OPERATIONS,
    dtypes: Sequence[str] = ("float64",),
    device: Any = None,
) -> Iterator[Outcome]:
    """The cells, one operation after the other; there are len(operations) len(backends) len(dtypes) len(modes)."""
    adapters = [get(backend) for backend in backends]
    for operation in operations:
        for adapter in adapters:
            for dtype in dtypes:
                for mode in modes:
                    yield cell(operation, adapter, mode, dtype, device)


def cell(operation: Operation, backend: Backend, mode: str, dtype: str = "float64", device: Any = None) -> Outcome:
    """One cell."""
    start = time.perf_counter()
    reason = unavailable(mode, backend)
    found = {"cell": "skipped", "reason": reason} if reason else _found(operation, backend, mode, dtype, device)
    return Outcome(
        "operations",
        operation.name,
        backend.name,
        dtype,
        str(device or "cpu"),
        mode,
        seconds=time.perf_counter() - start,
        tolerance=TOLERANCE[dtype],
        witness=WITNESS,
        tags=operation.standard,
        **found,
    )


def _found(operation: Operation, backend: Backend, mode: str, dtype: str, device: Any) -> dict[str, Any]:
    expected = _expected(operation, mode)
    try:
        first, second = _leaves(operation, backend, mode, dtype, device)
    except Exception as error:  # a backend may raise anything
        return {"cell": "raises", "message": f"{type(error).__name__}: {error}"}
    result = compared(first, expected, leaf_names(mode, len(operation.arguments)), dtype)
    if result["cell"] == "ok" and not all(map(np.array_equal, first, second)):
        return {**result, "cell": "wrong", "message": "the second call at the same point gives another result"}
    return result


def _leaves(operation: Operation, backend: Backend, mode: str, dtype: str, device: Any) -> tuple[Leaves, Leaves]:
    """What the mode gives at the point, twice, after a call at another point."""
    here, there, v, c = convert(_places(operation), backend, dtype=dtype, device=device)

    def f(*xs: Any) -> Any:
        return operation(xp, *xs)

    call = MODES[mode](f, v, c, backend)
    if mode == "vmap":
        here, there = (tuple(xp.stack(pair) for pair in zip(a, there, strict=True)) for a in (here, there))
    call(*there)
    first, second = (tuple(np.asarray(y) for y in convert(tuple(call(*here)), "numpy")) for _ in range(2))
    return first, second


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
