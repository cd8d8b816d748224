"""First order: the derivative in k directions."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from polyad.arrays import xp
from polyad.jets.jet import make
from polyad.jets.kind import Kind, Level, Parts
from polyad.jets.rule import compact, lift, ndim, primal, tangent

if TYPE_CHECKING:
    from polyad.jets.elementwise import Elementwise

__all__ = [
    "FIRST_ORDER",
    "FirstOrder",
    "contracted",
    "multilinear_tangent",
    "product_tangent",
    "solution_tangent",
]


class FirstOrder(Kind):
    """Jets with a tangent of shape (k, *shape) and nothing else."""

    def elementwise(self, level: Level, f: "Elementwise", args: tuple[Any, ...]) -> Any:
        if len(args) == 1 and f.partials[0] is not None:
            x, t = args[0].primal, args[0].compact
            y = f.compute(x)
            factor = f.partials[0](x, y)
            return make(level, y, t if type(factor) is float and factor == 1.0 else t * factor)
        primals = [primal(level, arg) for arg in args]
        y = f(*primals)
        tangents = [compact(level, arg) for arg in args]
        factors = [None if t is None else f.partial(i, primals, y) for i, t in enumerate(tangents)]
        return make(level, y, contracted(factors, tangents, ndim(y)))

    def bilinear(self, level: Level, a: Any, b: Any, f: Any, left: Any, right: Any) -> Any:
        return make(level, f(primal(level, a), primal(level, b)), product_tangent(level, a, b, left, right))

    def multilinear(self, level: Level, args: list[Any], f: Any, along: Any) -> Any:
        primals = [primal(level, arg) for arg in args]
        return make(level, f(*primals), multilinear_tangent(level, args, primals, along))

    def solution(self, level: Level, a: Any, b: Any) -> Any:
        factor = primal(level, a)
        y = xp.linalg.solve(factor, primal(level, b))
        return make(level, y, solution_tangent(level, a, b, factor, y))

    def inverse(self, level: Level, x: Any) -> Any:
        y = xp.linalg.inv(x.primal)
        return make(level, y, -(y @ x.tangent @ y))

    def pulled(self, level: Level, cotangents: Sequence[Parts], pull: Callable[..., Any]) -> list[Any]:
        sweeps = []
        for i in range(level.directions):
            seeds = [part for c, dc in cotangents for part in (dc[i, ...], _at(i, c, level.directions))]
            sweeps.append(pull(seeds))
        grads = []
        for j in range(0, len(sweeps[0]), 2):
            grads.append(make(level, sweeps[0][j + 1][0, ...], xp.stack([sweep[j] for sweep in sweeps])))
        return grads

    def derived(self, level: Level, rule: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return rule(level, *args, **kwargs)


def _at(i: int, c: Any, k: int) -> Any:
    """c in direction i and zero in the others: shape (k, *c.shape)."""
    return xp.stack([c if i == j else xp.zeros_like(c) for j in range(k)])


def contracted(factors: Sequence[Any], tangents: Sequence[Any], n: int) -> Any:
    """The sum of the partial derivatives times the tangents, for a result of n axes; None for zero."""
    total = None
    for factor, t in zip(factors, tangents, strict=True):
        if t is not None and factor is not None:
            term = lift(t, n)
            term = term if isinstance(factor, float) and factor == 1.0 else term * factor
            total = term if total is None else total + term
    return total


def product_tangent(level: Level, a: Any, b: Any, left: Any, right: Any) -> Any:
    """The product rule; None where neither factor moves."""
    ta, tb = tangent(level, a), tangent(level, b)
    total = None if ta is None else left(ta, primal(level, b))
    if tb is not None:
        term = right(primal(level, a), tb)
        total = term if total is None else total + term
    return total


def multilinear_tangent(level: Level, args: list[Any], primals: list[Any], along: Any) -> Any:
    """The product rule for many factors."""
    total = None
    for i, arg in enumerate(args):
        t = tangent(level, arg)
        if t is not None:
            term = along((i,), False, *(t if i == j else p for j, p in enumerate(primals)))
            total = term if total is None else total + term
    return total


def solution_tangent(level: Level, a: Any, b: Any, factor: Any, y: Any) -> Any:
    """The tangent of y in a @ y = b; factor is the primal of a."""
    ta, tb = tangent(level, a), tangent(level, b)
    right = None if ta is None else -(lift(ta, y.ndim) @ y)
    if tb is not None:
        tb = lift(tb, y.ndim)
        right = tb if right is None else right + tb
    return xp.linalg.solve(factor, right)


FIRST_ORDER = FirstOrder()
