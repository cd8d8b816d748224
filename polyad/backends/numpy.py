"""NumPy: forward mode through polyad's own jets, exact for plain NumPy code."""

from typing import Any

import array_api_compat.numpy as namespace
import numpy as np

from polyad.backends import owner
from polyad.backends.base import Array, Backend
from polyad.backends.jets import JetBackend, jets_over
from polyad.errors import DetachError
from polyad.jets.jet import bottom

__all__ = ["NumPy"]


class NumPy(JetBackend):
    """Jets over ndarrays. The pullback is derived: one direction an entry, in chunks."""

    name = "numpy"
    host = True
    wraps = frozenset({"autograd"})  # jets accept boxes as parts and as constants

    @property
    def namespace(self) -> Any:
        return namespace

    def of(self, array: Array) -> Backend:
        inner = owner(bottom(array))
        return self if inner is None else jets_over(inner)

    def plain(self, values: Any, dtype: str | None, device: Any) -> Array:
        return np.asarray(values, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        raise DetachError(
            "convert: this array is being differentiated on the numpy backend; as an array of another framework "
            "it would lose its derivative. Convert before the call, or use polyad.stop_gradient(x) first"
        )
