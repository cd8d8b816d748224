"""NumPy: forward mode through polyad's own jets, exact for plain NumPy code."""

from collections.abc import Sequence
from typing import Any

import array_api_compat.numpy as namespace
import numpy as np

from polyad.arrays import dtype_name, xp
from polyad.backends.base import Array, Arrays, Backend, Function
from polyad.errors import DetachError
from polyad.jets import Jet, pushforwards
from polyad.jets.namespace import namespace as jet_namespace

__all__ = ["NumPy"]


class NumPy(Backend):
    """Jets over ndarrays. The pullback is derived: one direction an entry, in chunks."""

    name = "numpy"
    host = True
    wraps = frozenset({"autograd"})  # jets accept boxes as parts and as constants

    @property
    def namespace(self) -> Any:
        return namespace

    def namespace_of(self, array_type: type) -> Any:
        return jet_namespace if issubclass(array_type, Jet) else namespace

    def owns(self, array: Any) -> bool:
        return isinstance(array, Jet)

    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        if all(dx is None for dx in dxs):
            dxs = tuple(xp.zeros_like(x) for x in xs)
        one = tuple(None if dx is None else dx[None] for dx in dxs)
        ys, dys, *aux = pushforwards(f, xs, one, has_aux)
        return (ys, tuple(dy[0] for dy in dys), *aux)

    def pushforwards(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        return pushforwards(f, xs, dxs, has_aux)

    def stop_gradient(self, array: Array) -> Array:
        while isinstance(array, Jet):
            array = array.primal
        return array

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        if isinstance(values, Jet):
            return values if dtype in (None, dtype_name(values.dtype)) else values.astype(self.dtype(dtype))
        return np.asarray(values, dtype=dtype)

    def to_host(self, array: Array) -> Any:
        raise DetachError(
            "convert: this array is being differentiated on the numpy backend; as an array of another framework "
            "it would lose its derivative. Convert before the call, or use polyad.stop_gradient(x) first"
        )
