"""Activations by name, written in functions that every backend differentiates."""

import math
from collections.abc import Callable
from difflib import get_close_matches
from typing import Any

from polyad.arrays import stop_gradient, xp
from polyad.errors import ArgumentError

Activation = Callable[[Any], Any]

__all__ = ["ACTIVATIONS", "activation"]


tanh: Activation = xp.tanh  # itself: a function around it would be one more call for each layer
sin: Activation = xp.sin  # as in SIREN


def identity(x: Any) -> Any:
    """x."""
    return x


def relu(x: Any) -> Any:
    """max(x, 0); the derivative at 0 is 0."""
    return xp.where(x > 0, x, xp.zeros_like(x))


def leaky_relu(x: Any) -> Any:
    """x, or 0.01 x below 0."""
    return xp.where(x > 0, x, 0.01 * x)


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), through tanh so that nothing overflows."""
    return 0.5 * xp.tanh(0.5 * x) + 0.5


def softplus(x: Any) -> Any:
    """log(1 + exp(x))."""
    return xp.logaddexp(x, xp.zeros_like(x))


def silu(x: Any) -> Any:
    """x sigmoid(x), also called swish."""
    return x * sigmoid(x)


def elu(x: Any) -> Any:
    """x, or exp(x) - 1 below 0."""
    below = xp.where(x > 0, xp.zeros_like(x), x)  # exp() of large x would overflow in the branch not taken
    return xp.where(x > 0, x, xp.expm1(below))


def gelu(x: Any) -> Any:
    """The tanh form of GELU (Hendrycks & Gimpel 2016)."""
    return 0.5 * x * (1 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


def softmax(x: Any) -> Any:
    """exp(x) over its sum along the last axis."""
    return xp.exp(log_softmax(x))


def log_softmax(x: Any) -> Any:
    """Logarithm of softmax along the last axis, without overflow."""
    shifted = x - stop_gradient(xp.max(x, axis=-1, keepdims=True))
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


ACTIVATIONS: dict[str, Activation] = {
    f.__name__: f
    for f in (elu, gelu, identity, leaky_relu, log_softmax, relu, sigmoid, silu, sin, softmax, softplus, tanh)
} | {"swish": silu}


def activation(given: str | Activation | None) -> Activation:
    """The function of this name; a function is itself, None is the identity."""
    if given is None:
        return identity
    if callable(given):
        return given
    if given not in ACTIVATIONS:
        close = get_close_matches(str(given), ACTIVATIONS, 1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(
            f"there is no activation {given!r}.{hint} Known are {', '.join(ACTIVATIONS)}; or give a function"
        )
    return ACTIVATIONS[given]
