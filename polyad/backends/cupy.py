"""CuPy: forward mode through polyad's own jets, whose parts are arrays on the GPU.

What the numpy backend is for ndarrays. Tried with a stand-in for CuPy over NumPy
(tests/stand_in), and not on a GPU yet.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import cupy

from polyad.backends.base import Array, Arrays, Function
from polyad.backends.cupy_namespace import namespace, on
from polyad.backends.standard import Standard

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
        with on(device):
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
