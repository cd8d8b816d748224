"""Libraries of the array-API standard that have no derivatives: forward mode by polyad's jets over their arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from polyad.backends.base import Array, Backend, Function
from polyad.backends.jets import JetBackend

__all__ = ["Standard"]


class Standard(JetBackend):
    """Jets over the arrays of a library. The pullback is derived: one direction an entry, in chunks.

    library  its namespace, as the standard has it
    array    the type of its arrays
    """

    library: Any
    array: type

    namespace_of = Backend.namespace_of  # jets belong to the adapter over this one

    @property
    def namespace(self) -> Any:
        return self.library

    @property
    def native(self) -> Mapping[str, Function]:
        return {}

    def owns(self, array: Any) -> bool:
        return isinstance(array, self.array)

    def plain(self, values: Any, dtype: str | None, device: Any) -> Array:
        options = {} if device is None else {"device": device}
        return self.library.asarray(values, dtype=self.dtype(dtype) if dtype else None, **options)

    def device(self, array: Array) -> Any:
        return getattr(array, "device", None)

    def to_host(self, array: Array) -> Any:
        return np.from_dlpack(array)
