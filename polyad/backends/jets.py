"""Jets over the arrays of another backend: forward mode with polyad's own engine."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

from polyad.arrays import dtype_name, xp
from polyad.backends import jet_levels
from polyad.backends.base import Array, Arrays, Backend, Function, with_aux
from polyad.compositions import ACTIVATIONS
from polyad.errors import DetachError
from polyad.jets import Jet, pushforwards
from polyad.jets.batch import batch
from polyad.jets.jet import bottom
from polyad.jets.namespace import namespace_over
from polyad.jets.pullback import pullback
from polyad.jets.rule import apply

__all__ = ["JetBackend", "Jets", "jets_over"]


class JetBackend(Backend):
    """What an adapter of jets does whatever their parts are."""

    def namespace_of(self, array: Array) -> Any:
        return namespace_over(self.namespace) if isinstance(array, Jet) else self.namespace

    def owns(self, array: Any) -> bool:
        return isinstance(array, Jet)

    @property
    def native(self) -> Mapping[str, Function]:
        return _native(self.namespace)

    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        if all(dx is None for dx in dxs):
            dxs = tuple(xp.zeros_like(x) for x in xs)
        one = tuple(None if dx is None else dx[None, ...] for dx in dxs)
        ys, dys, *aux = pushforwards(f, xs, one, has_aux)
        return (ys, tuple(dy[0, ...] for dy in dys), *aux)

    def pushforwards(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        return pushforwards(f, xs, dxs, has_aux)

    def stop_gradient(self, array: Array) -> Array:
        return bottom(array)

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        if isinstance(values, Jet):
            return values if dtype in (None, dtype_name(values.dtype)) else xp.astype(values, self.dtype(dtype or ""))
        return self.plain(values, dtype, device)

    @abstractmethod
    def plain(self, values: Any, dtype: str | None, device: Any) -> Array:
        """An array such as the jets are made of."""


class Jets(JetBackend):
    """The adapter of jets whose parts are arrays of the backend `over`.

    It bears the name of that backend and makes its arrays: what a function
    creates, closes over or converts stays of one framework, and only the
    derivative of a function of jets is another one, by jets of a higher level.
    """

    def __init__(self, over: Backend) -> None:
        self.over = self.inner = over
        self.name, self.host, self.wraps = over.name, over.host, over.wraps | {over.name}
        self.abs_at_zero, self.clip_at_bound = over.abs_at_zero, over.clip_at_bound
        if "reverse" not in over.modes:
            self.modes = ("forward",)

    @property
    def namespace(self) -> Any:
        return self.inner.namespace

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        if "reverse" not in self.modes:
            return super().pullback(f, xs, has_aux)
        below = with_aux(self.inner.pullback, True)
        both = f if has_aux else lambda *xs: (f(*xs), ())
        ys, pull, aux = pullback(jet_levels(self), below, both, xs)
        return (ys, pull, aux) if has_aux else (ys, pull)

    @property
    def batches(self) -> bool:
        return self.inner.batches

    def batch(self, f: Function, has_shared: bool = False) -> Function:
        if not self.batches:
            return super().batch(f, has_shared)
        return batch(jet_levels(self), self.inner.batch, f, has_shared)

    def refusal(self, error: Exception) -> str:
        return self.inner.refusal(error)

    def plain(self, values: Any, dtype: str | None, device: Any) -> Array:
        return self.inner.asarray(values, dtype, device)

    def concrete(self, array: Array) -> bool:
        return self.inner.concrete(bottom(array))

    def records(self) -> bool:
        return self.inner.records()

    def refuses_jets(self) -> bool:
        return self.inner.refuses_jets()

    def device(self, array: Array) -> Any:
        return self.inner.device(bottom(array))

    def dtype(self, name: str) -> Any:
        return self.inner.dtype(name)

    def default_dtype(self) -> str:
        return self.inner.default_dtype()

    def constant(self, values: Any, like: Array = None) -> Array:
        return self.inner.constant(values, None if like is None else bottom(like))

    def to_host(self, array: Array) -> Any:
        if not isinstance(array, Jet):
            return self.inner.to_host(array)
        raise DetachError(
            f"convert: this array is being differentiated by jets over {self.name}; as an array of another framework "
            f"it would lose its derivative. Convert before the call, or use polyad.stop_gradient(x) first"
        )


@cache
def _native(parts: Any) -> Mapping[str, Function]:
    own = namespace_over(parts)
    return {"affine": partial(apply, "layers.affine"), **{name: getattr(own, name) for name in ACTIVATIONS}}


@cache
def jets_over(backend: Backend) -> Jets:
    """The adapter of jets over the arrays of this backend."""
    return Jets(backend)
