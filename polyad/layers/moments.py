"""Mean and variance, for norms."""

from typing import Any

from polyad.arrays import operation, xp

__all__ = ["centred", "rsqrt"]


@operation
def centred(x: Any, *, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """(x - mean, mean, biased variance) over these axes, which stay with length 1."""
    mean = xp.mean(x, axis=axes, keepdims=True)
    y = x - mean
    return y, mean, xp.mean(y * y, axis=axes, keepdims=True)


@operation
def rsqrt(x: Any) -> Any:
    """1 / sqrt(x)."""
    return 1 / xp.sqrt(x)
