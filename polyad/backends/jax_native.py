"""What JAX does itself: activations, convolution, and the scan of a recurrence; and what runs around a place."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src import core  # what runs around a place: public JAX tells it by making an array, which takes 30 us

__all__ = ["NATIVE", "differentiated", "looped", "traced"]


def traced() -> bool:
    """Whether what is computed here is compiled later."""
    return any(type(trace).__name__ == "DynamicJaxprTrace" for trace in _traces())


def looped() -> bool:
    """Whether this is the body of a loop that is compiled later."""
    purposes = (getattr(getattr(getattr(t, "frame", None), "debug_info", None), "traced_for", "") for t in _traces())
    return any(purpose in LOOPS for purpose in purposes)


LOOPS = ("scan", "fori_loop", "while_loop", "while_body")


def differentiated() -> bool:
    """Whether JAX differentiates what is computed here."""
    return any(type(trace).__name__ in ("LinearizeTrace", "JVPTrace") for trace in _traces())


def _traces() -> Iterator[Any]:
    """The transformations that run around this place, the innermost first."""
    trace = core.trace_ctx.trace
    while trace is not None:
        yield trace
        trace = getattr(trace, "parent_trace", None)


def _convolution(x: Any, weight: Any, *, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    space = "DHW"[-len(stride) :]
    return jax.lax.conv_general_dilated(
        *(x, weight, stride, padding),
        rhs_dilation=dilation,
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=groups,
    )


def _scan(step: Callable[..., Any], carry: Any, xs: Any, params: Any) -> Any:
    # Compiled anew at each call: 300 ms for 20 steps, which the loop does in 10 (jax 0.10, 2026-11).
    if not traced():
        return NotImplemented
    return jax.lax.scan(lambda carry, x: step(carry, x, params), carry, xs)


NATIVE = {
    "erf": jax.scipy.special.erf,
    "gelu": lambda x, /: jax.nn.gelu(x, approximate=False),
    "log_softmax": lambda x, /, *, axis=-1: jax.nn.log_softmax(x, axis),
    "logsumexp": lambda x, /, *, axis=None, keepdims=False: jax.nn.logsumexp(x, axis, keepdims=keepdims),
    "relu": jax.nn.relu,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "softmax": lambda x, /, *, axis=-1: jax.nn.softmax(x, axis),
    "softplus": jax.nn.softplus,
    "convolution": _convolution,
    "scan": _scan,
}
