"""CuPy: forward mode through polyad's own jets, whose parts are arrays on the GPU.

What the numpy backend is for ndarrays. Tried with a stand-in for CuPy over NumPy
(tests/stand_in), and not on a GPU yet.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import array_api_compat.cupy as namespace
import cupy

from polyad.backends.base import Array, Arrays, Function
from polyad.backends.standard import Standard
from polyad.errors import ArgumentError

__all__ = ["CuPy"]


class CuPy(Standard):
    """Jets over arrays of CuPy. As CuPy itself, it computes on the current device."""

    name = "cupy"
    library, array = namespace, cupy.ndarray

    @cached_property
    def _special(self) -> Mapping[str, Function]:
        from cupyx.scipy.special import erf

        return {"erf": erf}

    @property
    def native(self) -> Mapping[str, Function]:
        return self._special

    def plain(self, values: Any, dtype: str | None, device: Any) -> Array:
        with cupy.cuda.Device(_number(device)):
            return cupy.asarray(values, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        return cupy.asnumpy(array)

    def device(self, array: Array) -> str:
        return f"cuda:{array.device.id}"

    def devices(self) -> tuple[str, ...]:
        try:
            return tuple(f"cuda:{i}" for i in range(cupy.cuda.runtime.getDeviceCount()))
        except cupy.cuda.runtime.CUDARuntimeError:  # there is no driver
            return ()

    def hardware(self, array: Array) -> str:
        name = cupy.cuda.runtime.getDeviceProperties(array.device.id)["name"]
        return name.decode() if isinstance(name, bytes) else str(name)

    def wait(self, arrays: Sequence[Array]) -> Arrays:
        cupy.cuda.get_current_stream().synchronize()
        return tuple(arrays)


def _number(device: Any) -> int | None:
    """The number of a device, from "cuda:1", "cuda", a number or a Device of CuPy; None is the current one."""
    if isinstance(device, str):
        kind, _, number = device.partition(":")
        if kind not in ("cuda", "gpu") or not (number or "0").isdigit():
            raise ArgumentError(f"cupy has no device {device!r}; its devices are 'cuda', 'cuda:0', 'cuda:1' and so on")
        return int(number) if number else None
    return getattr(device, "id", device)
