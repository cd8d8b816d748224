"""JAX: jvp, vjp, vmap and jit as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from polyad.arrays import dtype_name
from polyad.backends.base import Array, Arrays, Backend, Function, Pull, of_some, zeros_for_none
from polyad.errors import DetachError, PrecisionError

__all__ = ["Jax"]

ACTIVATIONS = {
    "erf": jax.scipy.special.erf,
    "gelu": lambda x, /: jax.nn.gelu(x, approximate=False),
    "log_softmax": lambda x, /, *, axis=-1: jax.nn.log_softmax(x, axis),
    "logsumexp": lambda x, /, *, axis=None, keepdims=False: jax.nn.logsumexp(x, axis, keepdims=keepdims),
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": lambda x, /, *, axis=-1: jax.nn.softmax(x, axis),
    "softplus": jax.nn.softplus,
}


class Jax(Backend):
    """The primitives are JAX's own, so they nest with grad, jit, vmap and scan."""

    name = "jax"
    strategies = ("taped", "recompute")

    @property
    def namespace(self) -> Any:
        return jnp

    @property
    def activations(self) -> Mapping[str, Function]:
        return ACTIVATIONS

    def owns(self, array: Any) -> bool:
        return isinstance(array, jax.Array)

    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        return jax.jvp(f, xs, zeros_for_none(dxs, xs), has_aux=has_aux)

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        ys, pull, *aux = jax.vjp(f, *xs, has_aux=has_aux)
        return (ys, lambda cotangents: pull(zeros_for_none(cotangents, ys)), *aux)

    def pushforwards(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        moving = [i for i, dx in enumerate(dxs) if dx is not None]
        ys, push, *aux = jax.linearize(of_some(f, xs, moving), *(xs[i] for i in moving), has_aux=has_aux)
        return (ys, jax.vmap(push)(*(dxs[i] for i in moving)), *aux)

    def pullbacks(self, pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
        given = [i for i, ct in enumerate(cotangents) if ct is not None]
        one = of_some(lambda *cotangents: pull(cotangents), cotangents, given)
        return jax.vmap(one)(*(cotangents[i] for i in given))

    def batch(self, f: Function) -> Function:
        return jax.vmap(f)

    def recompute(self, f: Function, xs: Arrays) -> Arrays:
        return jax.checkpoint(f)(*xs)

    def preferred_strategy(self) -> str:
        # Compiled, recomputing is faster and needs 1/33 of the memory in a scan; run
        # operation by operation, it costs a trace at each call (docs/nested.md).
        return "recompute" if isinstance(jnp.zeros(()), jax.core.Tracer) else "taped"

    def compile(self, f: Function) -> Function:
        return jax.jit(f)

    def stop_gradient(self, array: Array) -> Array:
        return jax.lax.stop_gradient(array)

    def output_shapes(self, f: Function, xs: Arrays) -> list[tuple[int, ...]]:
        return [y.shape for y in jax.eval_shape(f, *xs)]

    def scope(self) -> Any:
        return _trace_state()

    def concrete(self, array: Array) -> bool:
        try:
            bool(array)  # tracers of grad and jvp know their values, those of jit and vmap do not
        except jax.errors.ConcretizationTypeError:
            return False
        return True

    def default_dtype(self) -> str:
        return "float64" if jax.config.jax_enable_x64 else "float32"

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        wanted = dtype or (dtype_name(values.dtype) if hasattr(values, "dtype") else "")
        if wanted == "float64" and not jax.config.jax_enable_x64:
            raise PrecisionError(
                "float64 was asked of JAX, whose 64-bit types are switched off; JAX would compute in float32. "
                "Type jax.config.update('jax_enable_x64', True) at the start, or set JAX_ENABLE_X64=1 in the "
                "environment, or use dtype='float32'"
            )
        if isinstance(values, jax.Array):
            array = values if dtype is None else values.astype(dtype)
        else:
            array = jnp.array(values, dtype=dtype)  # a copy: nobody may write to what JAX holds
        return array if device is None else jax.device_put(array, _device(device))

    def constant(self, values: Any) -> Array:
        return values  # every function of JAX takes ndarrays

    def to_host(self, array: Array) -> Any:
        if isinstance(array, jax.core.Tracer):
            raise DetachError(
                "convert: this is a JAX tracer (inside jit, grad or vmap); as an array of another framework it would "
                "lose its derivative. Convert before the call, outside the transformation"
            )
        return np.asarray(array)


def _trace_state() -> Any:
    from jax._src import core  # the one thing that has no public name; Flax reads it the same way

    return core.get_opaque_trace_state(convention="flax")


def _device(device: Any) -> Any:
    return jax.devices(device)[0] if isinstance(device, str) else device
