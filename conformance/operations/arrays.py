"""Functions that move entries, reductions and indexing, with the options that the standard gives them."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .operation import Argument, Domain, Operation, apart, between, signed

__all__ = ["ARRAYS"]

SOME = signed(0.2, 1.2)
NEAR = between(0.7, 1.2)


def of_arrays(
    name: str, f: Callable[..., Any], *shapes: str, domain: Domain = SOME, least: int = 1, covers: tuple[str, ...] = ()
) -> Operation:
    """An operation on arrays of numbers."""
    return Operation(name, f, tuple(Argument(shape, domain) for shape in shapes or ("m n",)), covers, smallest=least)


def _indices(xp: Any, *places: int) -> Any:
    return xp.asarray(np.array(places))


def _mask(xp: Any, n: int) -> Any:
    return xp.asarray(np.arange(n) % 2 == 0)


_MOVES = (
    of_arrays("asarray(x)", lambda xp, x: xp.asarray(x)),
    of_arrays("astype(x, float64)", lambda xp, x: xp.astype(x, xp.float64)),
    of_arrays("broadcast_arrays(x, y)", lambda xp, a, b: xp.broadcast_arrays(a, b)[1] * a, "m n", "n"),
    of_arrays("broadcast_to(x, (2, m, n))", lambda xp, x: xp.broadcast_to(x, (2, *x.shape))),
    of_arrays("broadcast_to(x, (m, n))", lambda xp, a, b: xp.broadcast_to(a, b.shape) * b, "m 1", "m n"),
    of_arrays("concat([x, y])", lambda xp, a, b: xp.concat([a, b]), "m n", "k n"),
    of_arrays("concat([x, y], axis=-1)", lambda xp, a, b: xp.concat([a, b, a], axis=-1), "m n", "m k"),
    of_arrays("concat([x, y], axis=None)", lambda xp, a, b: xp.concat([a, b], axis=None), "m n", "n"),
    of_arrays("concat([x, 0])", lambda xp, x: xp.concat([x, xp.zeros_like(x)]) + 1.0, covers=("concat", "zeros_like")),
    of_arrays("diff(x)", lambda xp, x: xp.diff(x), least=2),
    of_arrays("diff(x, n=2, axis=0)", lambda xp, x: xp.diff(x, n=2, axis=0), "n m", least=3),
    of_arrays("diff(x, prepend=y, append=y)", lambda xp, a, b: xp.diff(a, axis=-1, prepend=b, append=b), "m n", "m 1"),
    of_arrays("expand_dims(x, axis=1)", lambda xp, x: xp.expand_dims(x, axis=1)),
    of_arrays("expand_dims(x, axis=-1)", lambda xp, x: xp.expand_dims(x, axis=-1)),
    of_arrays("flip(x)", lambda xp, x: xp.flip(x) * x),
    of_arrays("flip(x, axis=-1)", lambda xp, x: xp.flip(x, axis=-1) * x),
    of_arrays("full((m, n), x)", lambda xp, x: xp.full((2, 3), x[0]) * x[0], "m"),
    of_arrays("full_like(x, y)", lambda xp, a, b: xp.full_like(a, b[0]) * a, "m n", "m"),
    of_arrays("linspace(x, y, 4)", lambda xp, x: xp.linspace(x[0], x[1], 4), "2"),
    of_arrays("matrix_transpose(x)", lambda xp, x: xp.matrix_transpose(x) * x, "n n"),
    of_arrays("meshgrid(x, y)", lambda xp, a, b: xp.meshgrid(a, b)[0] * xp.meshgrid(a, b)[1], "m", "n"),
    of_arrays("meshgrid(x, y, indexing='ij')", lambda xp, a, b: xp.meshgrid(a, b, indexing="ij")[0] * b, "m", "n"),
    of_arrays("moveaxis(x, 0, -1)", lambda xp, x: xp.moveaxis(x, 0, -1), "m n 1"),
    of_arrays("permute_dims(x, (2, 0, 1))", lambda xp, x: xp.permute_dims(x, (2, 0, 1)), "m 1 n"),
    of_arrays("repeat(x, 2)", lambda xp, x: xp.repeat(x, 2), "n"),
    of_arrays("repeat(x, 2, axis=0)", lambda xp, x: xp.repeat(x, 2, axis=0)),
    of_arrays("reshape(x, (-1,))", lambda xp, x: xp.reshape(x, (-1,))),
    of_arrays("reshape(x, (n, m))", lambda xp, x: xp.reshape(x, x.shape[::-1])),
    of_arrays("roll(x, 1)", lambda xp, x: xp.roll(x, 1) * x),
    of_arrays("roll(x, (1, -2), axis=(0, 1))", lambda xp, x: xp.roll(x, (1, -2), axis=(0, 1)) * x),
    of_arrays("squeeze(x, axis=1)", lambda xp, x: xp.squeeze(x, axis=1), "m 1 n"),
    of_arrays("squeeze(x, axis=(0, -1))", lambda xp, x: xp.squeeze(x, axis=(0, -1)), "1 n 1"),
    of_arrays("stack([x, y])", lambda xp, a, b: xp.stack([a, b * a]), "m n", "m n"),
    of_arrays("stack([x, y], axis=-1)", lambda xp, a, b: xp.stack([a, b], axis=-1), "m n", "m n"),
    of_arrays("tile(x, (2, 1))", lambda xp, x: xp.tile(x, (2, 1))),
    of_arrays("tril(x, k=-1)", lambda xp, x: xp.tril(x, k=-1) + x),
    of_arrays("triu(x)", lambda xp, x: xp.triu(x) + 2 * x),
    of_arrays("unstack(x, axis=1)", lambda xp, x: xp.unstack(x, axis=1)[0] * xp.unstack(x, axis=-1)[-1], least=2),
    of_arrays("x.T", lambda xp, x: x.T * x, "n n", covers=("T",)),
    of_arrays("x.mT", lambda xp, x: x.mT * x, "k n n", covers=("mT",)),
)
_REDUCTIONS = (
    of_arrays("cumulative_prod(x, axis=1)", lambda xp, x: xp.cumulative_prod(x, axis=1), domain=NEAR),
    of_arrays("cumulative_prod(x, include_initial=True)",
              lambda xp, x: xp.cumulative_prod(x, include_initial=True), "n", domain=NEAR),
    of_arrays("cumulative_sum(x)", lambda xp, x: xp.cumulative_sum(x), "n"),
    of_arrays("cumulative_sum(x, axis=-2, include_initial=True)",
              lambda xp, x: xp.cumulative_sum(x, axis=-2, include_initial=True)),
    of_arrays("max(x)", lambda xp, x: xp.max(x) * x, domain=apart),
    of_arrays("max(x, axis=0, keepdims=True)", lambda xp, x: xp.max(x, axis=0, keepdims=True) * x, domain=apart),
    of_arrays("mean(x)", lambda xp, x: xp.mean(x), domain=NEAR),
    of_arrays("mean(x, axis=-1)", lambda xp, x: xp.mean(x, axis=-1)),
    of_arrays("min(x, axis=(0, -1))", lambda xp, x: xp.min(x, axis=(0, -1)), "m 2 n", domain=apart),
    of_arrays("prod(x)", lambda xp, x: xp.prod(x), domain=NEAR),
    of_arrays("prod(x, axis=0)", lambda xp, x: xp.prod(x, axis=0), domain=NEAR),
    of_arrays("std(x)", lambda xp, x: xp.std(x), domain=apart, least=2),
    of_arrays("std(x, axis=-1, correction=1, keepdims=True)",
              lambda xp, x: xp.std(x, axis=-1, correction=1, keepdims=True), domain=apart, least=2),
    of_arrays("sum(x)", lambda xp, x: xp.sum(x)),
    of_arrays("sum(x, axis=(0, -1))", lambda xp, x: xp.sum(x, axis=(0, -1)), "m 2 n"),
    of_arrays("sum(x, axis=-1, keepdims=True)", lambda xp, x: xp.sum(x, axis=-1, keepdims=True) * x, domain=NEAR),
    of_arrays("var(x)", lambda xp, x: xp.var(x), domain=apart, least=2),
    of_arrays("var(x, axis=0, correction=1.0)", lambda xp, x: xp.var(x, axis=0, correction=1.0), "n m",
              domain=apart, least=2),
    of_arrays("log_softmax(x)", lambda xp, x: xp.log_softmax(x)),
    of_arrays("log_softmax(x, axis=0)", lambda xp, x: xp.log_softmax(x, axis=0)),
    of_arrays("logsumexp(x)", lambda xp, x: xp.logsumexp(x)),
    of_arrays("logsumexp(x, axis=0, keepdims=True)", lambda xp, x: xp.logsumexp(x, axis=0, keepdims=True)),
    of_arrays("softmax(x)", lambda xp, x: xp.softmax(x)),
    of_arrays("softmax(x, axis=0)", lambda xp, x: xp.softmax(x, axis=0)),
)  # fmt: skip
_INDEXING = (
    of_arrays("sort(x)", lambda xp, x: xp.sort(x) * x, domain=apart),
    of_arrays("sort(x, axis=0, descending=True)", lambda xp, x: xp.sort(x, axis=0, descending=True) * x, domain=apart),
    of_arrays("take(x, i, axis=-1)", lambda xp, x: xp.take(x, np.array([1, 0, 1]), axis=-1), least=2),
    of_arrays("take(x, i)", lambda xp, x: xp.take(x, np.array([1, 0, 1])), "n", least=2),
    of_arrays("take_along_axis(x, argsort(x), axis=0)",
              lambda xp, x: xp.take_along_axis(x, xp.argsort(x, axis=0), axis=0) * x, domain=apart),
    *(
        of_arrays(name, f, shape, least=2, covers=("__getitem__",))
        for name, shape, f in (
            ("x[1]", "m n", lambda xp, x: x[1]),
            ("x[-1, 0]", "m n", lambda xp, x: x[-1, 0]),
            ("x[1:, ::-1]", "m n", lambda xp, x: x[1:, ::-1]),
            ("x[::-2]", "n", lambda xp, x: x[::-2]),
            ("x[..., 1]", "m 2 n", lambda xp, x: x[..., 1]),
            ("x[:, None, ...]", "m n", lambda xp, x: x[:, None, ...]),
            ("x[0, ..., None]", "m n", lambda xp, x: x[0, ..., None]),
            ("x[0, ..., ::-1]", "m 2 n", lambda xp, x: x[0, ..., ::-1]),
            ("x[()]", "", lambda xp, x: x[()]),
            ("x[:0]", "m n", lambda xp, x: xp.concat([x[:0], x])),
            ("x[i]", "m n", lambda xp, x: x[_indices(xp, 0, 1, 1)]),
            ("x[i, j]", "m n", lambda xp, x: x[_indices(xp, 0, 1, 1), _indices(xp, 1, 0, 0)]),
            ("x[mask]", "n", lambda xp, x: x[_mask(xp, x.shape[0])]),
            ("x[:, mask]", "m n", lambda xp, x: x[:, _mask(xp, x.shape[1])]),
        )
    ),
    of_arrays("x of one entry", lambda xp, x: x * x, "", covers=("__mul__",)),
)  # fmt: skip

ARRAYS: tuple[Operation, ...] = (*_MOVES, *_REDUCTIONS, *_INDEXING)
