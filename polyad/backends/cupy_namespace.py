"""array_api_compat.cupy, with what the standard says where CuPy does less.

linalg.solve takes matrices and right-hand sides whose batches broadcast; CuPy's refuses them
(cupy 14.2: cupy/linalg/_solve.py, `a.shape[:-1] != b.shape[:-1]`). Arrays are made on the
device that is asked for; array-api-compat leaves the device out.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

import array_api_compat.cupy as standard
import array_api_compat.cupy.linalg as matrices
import cupy
import numpy as np

from polyad.backends.overlay import Overlay
from polyad.errors import ArgumentError

__all__ = ["namespace", "on"]


def on(device: Any) -> Any:
    """The `with` block of a device: "cuda:1", "cuda", a number or a Device of CuPy; of None the current one."""
    if isinstance(device, str):
        kind, _, number = device.partition(":")
        if kind != "cuda" or not (number or "0").isdigit():
            raise ArgumentError(f"cupy has no device {device!r}; its devices are 'cuda', 'cuda:0', 'cuda:1' and so on")
        device = int(number) if number else None
    return cupy.cuda.Device(getattr(device, "id", device))


def _placed(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function f, which makes an array, on the device that is given."""

    @wraps(f)
    def function(*args: Any, device: Any = None, **options: Any) -> Any:
        with on(device):
            return f(*args, **options)

    return function


def _solve(a: Any, b: Any, /) -> Any:
    if b.ndim < 2 and a.ndim > 2:  # one vector for many matrices, which CuPy 13 refuses
        return _solve(a, b[:, None])[..., 0]
    if b.ndim < 2 or a.shape[:-1] == b.shape[:-1]:
        return matrices.solve(a, b)
    if a.ndim == 2:  # one matrix: its factors serve all right-hand sides, side by side
        columns = cupy.moveaxis(b, -2, 0)
        y = matrices.solve(a, columns.reshape(a.shape[0], math.prod(columns.shape[1:])))
        return cupy.moveaxis(y.reshape(columns.shape), 0, -2)
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return matrices.solve(cupy.broadcast_to(a, batch + a.shape[-2:]), cupy.broadcast_to(b, batch + b.shape[-2:]))


_NAME = "polyad.backends.cupy_namespace"
_MAKES = "arange asarray empty empty_like eye full full_like linspace ones ones_like zeros zeros_like"
_linalg = Overlay(f"{_NAME}.linalg", {"solve": _solve}, matrices)
namespace = Overlay(
    _NAME, {**{name: _placed(getattr(standard, name)) for name in _MAKES.split()}, "linalg": _linalg}, standard
)
