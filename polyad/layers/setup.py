"""setup: the parameters and the state of a model; train_mode and test_mode."""

from typing import Any

import numpy as np

from polyad import trees
from polyad.arrays import convert
from polyad.backends import current, get
from polyad.errors import ArgumentError
from polyad.layers.layer import Layer, Random, Test, Train, Tree

__all__ = ["setup", "test_mode", "train_mode"]


def setup(
    seed: int, model: Layer, *, backend: Any = None, dtype: str | None = None, device: Any = None
) -> tuple[Tree, Tree]:
    """(params, state) of a model.

    seed     a non-negative integer; equal seeds give equal numbers on every
             backend, in float32 and in float64
    backend  None: the backend around, see `set_backend`
    dtype    "float32" or "float64"; None: what the framework makes by default
    raises   BackendError; PrecisionError for float64 where it is switched off
    """
    if not isinstance(seed, int | np.integer) or isinstance(seed, bool) or seed < 0:
        raise ArgumentError(f"setup: the seed is a non-negative integer, not {seed!r}. Type setup(0, model)")
    if not isinstance(model, Layer):
        raise ArgumentError(f"setup: {model!r} is no polyad layer. Type setup(0, Chain(Dense(2, 4), ...))")
    target = current() if backend is None else get(backend)
    params, state = convert(model.init(Random(int(seed))), target, dtype=dtype or target.default_dtype(), device=device)
    return params, state


def train_mode(state: Tree) -> Tree:
    """The same state in training mode."""
    return _with_mode(state, Train())


def test_mode(state: Tree) -> Tree:
    """The same state in test mode: BatchNorm uses its running statistics."""
    return _with_mode(state, Test())


test_mode.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name


def _with_mode(state: Tree, mode: Any) -> Tree:
    return trees.map(lambda leaf: mode if _is_mode(leaf) else leaf, state, is_leaf=_is_mode)


def _is_mode(node: Any) -> bool:
    return isinstance(node, Train | Test)
