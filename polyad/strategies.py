"""Inner derivatives that keep their inputs alone.

recompute             the pass around evaluates the inner derivative again and
                      differentiates that: checkpointing
forward_over_reverse  it makes one sweep of dual numbers through the inner
                      reverse pass: the Hessian is symmetric

The second rests on one formula. Let L(x, c, u) = u . f(x, c), where c is what f
captures. A pullback is the gradient of L in x, f itself that in u, and a
pushforward is the derivative of the latter. The Hessian of L is symmetric: so
whatever cotangents come from around, those of x, c and u are the derivative of
grad L in one direction, which one forward sweep through the reverse pass gives.

Sources: Pearlmutter (1994); Griewank & Walther (2008), chapter 5.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from polyad.arrays import number_kind, xp
from polyad.backends import is_array
from polyad.backends.base import (
    Array,
    Arrays,
    Backend,
    Captured,
    Function,
    Pull,
    Push,
    Sweep,
    Transpose,
    with_aux,
    zeros_for_none,
)
from polyad.backends.purity import refuse_changed
from polyad.errors import PolyadError, UnsupportedError
from polyad.steps import explained

__all__ = ["InputsOnly", "recompute"]

Some = Sequence[Array | None]

ONCE = "type nested_switching('taped'), which evaluates it once"
HIDDEN = "taped", "f captures something that cannot be seen from outside, or runs inside another transformation"


def recompute(
    backend: Backend, sweep: Sweep, f: Function, xs: Arrays, captured: Captured, beside: Arrays = ()
) -> Arrays:
    """sweep(f, *xs, *beside), a tuple of arrays, which the pass around sweeps again; taped where f hides something."""
    args = (*xs, *beside)
    own = backend.checkpoint(functools.partial(sweep, f), args)
    if own is not None:
        return own
    found = backend.aside(sweep, f, xs, captured, beside)
    if found is None:
        explained(*HIDDEN)
        return sweep(f, *args)
    zs, more, closed, _ = found
    places = [i for i, z in enumerate(zs) if _differentiable(z)]
    again = _opened(sweep, closed, len(args))

    def floating(*args: Array) -> Arrays:
        values = again(*args)
        return tuple(values[i] for i in places)

    some = tuple(zs[i] for i in places)
    attached = dict(zip(places, backend.attach(some, (*args, *more), *_again(backend, floating, some)), strict=True))
    return tuple(attached.get(i, z) for i, z in enumerate(zs))


class InputsOnly:
    """A backend whose derivatives keep their inputs alone.

    captured  gives the arrays that can be found in f without running it
    dual      whether they are differentiated forward over reverse, else recomputed
    """

    def __init__(self, backend: Backend, captured: Captured, dual: bool) -> None:
        self.backend, self.captured, self.dual = backend, captured, dual

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    columns = Backend.columns

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        """As that of the backend; ys and what pull gives keep their inputs alone."""
        primitive = with_aux(self.backend.pullback, has_aux)
        made: list[Any] = []

        def sweep(f: Function, *xs: Array) -> Arrays:
            ys, pull, *aux = primitive(f, xs)
            made[:] = [pull, len(ys), *aux]
            return (*ys, *_floating(*aux))

        found = self.backend.aside(sweep, f, xs, self.captured)
        if found is None:
            explained(*HIDDEN)
            return primitive(f, xs)
        zs, more, closed, dual = found
        first, m, *aux = made
        g, args = _flat(closed, has_aux), (*xs, *more)
        values = self.backend.attach(zs, args, *_again(self.backend, g, zs))
        dual = self.dual and dual and self.backend.forward_is_right(first)
        pull = _Pullback(self.backend, _Lagrangian(self.backend, g, len(xs)), args, zs, m, first, dual)
        return (values[:m], pull, _with_floating(aux[0], values[m:])) if has_aux else (values, pull)

    def pullbacks(self, pull: Pull, cotangents: Some) -> Arrays:
        """As that of the backend."""
        return pull.many(cotangents) if isinstance(pull, _Pullback) else self.backend.pullbacks(pull, cotangents)

    def pushforward(self, f: Function, xs: Arrays, dxs: Some, has_aux: bool = False) -> Any:
        """As that of the backend; ys and dys keep their inputs alone."""
        return self._pushed(with_aux(self.backend.pushforward, has_aux), f, xs, dxs, has_aux, False)

    def pushforwards(self, f: Function, xs: Arrays, dxs: Some, has_aux: bool = False) -> Any:
        """As that of the backend; ys and dys keep their inputs alone."""
        return self._pushed(with_aux(self.backend.pushforwards, has_aux), f, xs, dxs, has_aux, True)

    def _pushed(self, primitive: Function, f: Function, xs: Arrays, dxs: Some, has_aux: bool, many: bool) -> Any:
        n, moving = len(xs), [i for i, dx in enumerate(dxs) if dx is not None]
        directions = tuple(dx for dx in dxs if dx is not None)
        made: list[Any] = []

        def sweep(f: Function, *args: Array) -> Arrays:
            ys, dys, *aux = primitive(f, args[:n], _spread(args[n:], moving, n))
            made[:] = [len(ys), *aux]
            return (*ys, *dys, *_floating(*aux))

        found = self.backend.aside(sweep, f, xs, self.captured, directions)
        if found is None:
            explained(*HIDDEN)
            return primitive(f, xs, dxs)
        zs, more, closed, dual = found
        m, *aux = made
        push, pull = _again(self.backend, _opened(sweep, closed, n + len(directions)), zs)
        if self.dual and dual:
            lagrangian = _Lagrangian(self.backend, _flat(closed, has_aux), n)
            pull = _or(functools.partial(lagrangian.pull_pushed, moving, m, zs, many), pull)
        values = self.backend.attach(zs, (*xs, *directions, *more), push, pull)
        ys, dys = values[:m], values[m : 2 * m]
        return (ys, dys, _with_floating(aux[0], values[2 * m :])) if has_aux else (ys, dys)


@dataclass
class _Lagrangian:
    """u . g(x, c) for a function g of n arrays x and of arrays c that returns a tuple."""

    backend: Backend
    g: Function
    n: int

    def many(self) -> "_Lagrangian":
        """The sum of k of them, each x with an axis of k in front."""

        def each(*args: Array) -> Arrays:
            xs, cs = args[: self.n], args[self.n :]
            ys: Arrays = self.backend.batch(lambda *xs: self.g(*xs, *cs))(*xs)
            return ys

        return _Lagrangian(self.backend, each, self.n)

    def gradient(self, args: Arrays, us: Arrays) -> tuple[Arrays, Arrays]:
        """(in u, in x and c)."""
        ys, pull = self.backend.pullback(self.g, args)
        return ys, pull(us)

    def derivative(self, args: Arrays, us: Arrays, dxs: Some, dus: Some) -> tuple[Any, Any]:
        """((gradient in u, in x and c), their derivatives in the direction of dxs and dus): one dual sweep."""
        m = len(us)

        def flat(*all_args: Array) -> Arrays:
            ys, gs = self.gradient(all_args[: len(args)], all_args[len(args) :])
            return (*ys, *gs)

        still = (None,) * (len(args) - self.n)
        with self.backend.tracked():  # without it torch has rules that are not differentiable
            values, tangents = self.backend.pushforward(flat, (*args, *us), (*dxs, *still, *dus))
        return (values[:m], values[m:]), (tangents[:m], tangents[m:])

    def pull_pushed(self, moving: list[int], m: int, zs: Arrays, many: bool, args: Arrays, cotangents: Some) -> Arrays:
        """Cotangents of xs, directions and captured arrays, from those of (ys, dys, aux) of a pushforward."""
        k = self.n + len(moving)
        xs, dxs, cs = args[: self.n], _spread(args[self.n : k], moving, self.n), args[k:]
        full = zeros_for_none(cotangents, zs)
        of_ys, of_dys, of_aux = full[:m], full[m : 2 * m], full[2 * m :]
        us: Arrays = (*of_dys, *(xp.zeros_like(a) for a in of_aux))
        dus: Arrays = (*of_ys, *of_aux)
        lagrangian = self
        if many:
            size = args[self.n].shape[0]
            lagrangian, xs = self.many(), tuple(_repeated(x, size) for x in xs)
            us = (*of_dys, *(_repeated(u, size) for u in us[m:]))
            dus = tuple(_first_of(u, size) for u in dus)
        (ys, gs), (_, dgs) = lagrangian.derivative((*xs, *cs), us, dxs, dus)
        refuse_changed(self.backend, [y[0] for y in ys[:m]] if many else ys[:m], zs[:m], ONCE)
        of_xs = [xp.sum(dg, axis=0) if many else dg for dg in dgs[: self.n]]
        return (*of_xs, *(gs[i] for i in moving), *dgs[self.n :])


@dataclass
class _Pullback:
    """What `pullback` returns: cotangents of ys to cotangents of xs.

    args  (*xs, *captured); zs the values of g; m the number of ys among them
    first the pullback that was made on constants
    """

    backend: Backend
    lagrangian: _Lagrangian
    args: Arrays
    zs: Arrays
    m: int
    first: Pull | None
    dual: bool

    def __call__(self, cotangents: Some) -> Arrays:
        return self._attached(cotangents, many=False)

    def many(self, cotangents: Some) -> Arrays:
        """For k cotangents: arguments and results have a leading axis k."""
        return self._attached(cotangents, many=True)

    def _attached(self, cotangents: Some, many: bool) -> Arrays:
        places = [i for i, u in enumerate(cotangents) if u is not None]
        us = tuple(u for u in cotangents if u is not None)
        assert self.first is not None
        constants = _spread([self.backend.stop_gradient(u) for u in us], places, self.m)
        found = self.backend.pullbacks(self.first, constants) if many else self.first(constants)
        gs = tuple(map(self.backend.stop_gradient, found))
        rule = replace(self, first=None)  # which holds the tape of the first evaluation
        push, pull = _again(self.backend, functools.partial(rule.pulled, places, many), gs)
        if self.dual:
            pull = _or(functools.partial(rule.dual_sweep, places, gs, many), pull)
        return self.backend.attach(gs, (*self.args, *us), push, pull)

    def pulled(self, places: list[int], many: bool, *args: Array) -> Arrays:
        """What pulling gives, as a function of args and of the cotangents at these places."""
        k = len(self.args)
        _, pull = self.backend.pullback(self.lagrangian.g, args[:k])
        some = self._full(args[k:], places, many)
        return (self.backend.pullbacks(pull, some) if many else pull(some))[: self.lagrangian.n]

    def _full(self, us: Some, places: list[int], many: bool) -> Arrays:
        """Cotangents of everything that g returns; zero where none is given."""
        size = us[0].shape[0] if many else 0  # type: ignore[union-attr]
        zeros = (xp.zeros_like(z) for z in self.zs)
        return zeros_for_none(
            _spread(us, places, len(self.zs)), tuple(_repeated(z, size) if many else z for z in zeros)
        )

    def dual_sweep(self, places: list[int], gs: Arrays, many: bool, args: Arrays, cotangents: Some) -> Arrays:
        """Cotangents of args and of the cotangents at these places, from those of what pulling gave."""
        n, k = self.lagrangian.n, len(self.args)
        us = self._full(args[k:], places, many)
        lagrangian, xs = self.lagrangian, args[:n]
        if many:
            lagrangian, xs = lagrangian.many(), tuple(_repeated(x, us[0].shape[0]) for x in xs)
        still = (None,) * len(us)
        if all(v is None for v in cotangents):
            cotangents = tuple(map(xp.zeros_like, xs))
        (_, again), (dys, dgs) = lagrangian.derivative((*xs, *args[n:k]), us, cotangents, still)
        refuse_changed(self.backend, again[:n], gs, ONCE)
        of_xs = [xp.sum(dg, axis=0) if many else dg for dg in dgs[:n]]
        return (*of_xs, *dgs[n:], *(dys[i] for i in places))


def _or(first: Transpose, second: Transpose) -> Transpose:
    """The second where a function in f has no forward pass, or none that can be differentiated."""

    def either(args: Arrays, cotangents: Some) -> Arrays:
        try:
            return first(args, cotangents)
        except PolyadError as error:
            if not isinstance(error, UnsupportedError):
                raise
        except (NotImplementedError, RuntimeError, TypeError, ValueError):
            pass
        return second(args, cotangents)

    return either


def _opened(sweep: Sweep, closed: Function, n: int) -> Function:
    """The sweep as a function of its n arguments and of what f captures."""

    def again(*args: Array) -> Arrays:
        return sweep(lambda *xs: closed(*xs, *args[n:]), *args[:n])

    return again


def _again(backend: Backend, g: Function, zs: Arrays) -> tuple[Push, Transpose]:
    """(push, pull) of g, which is evaluated when they are asked for. zs are its values."""

    def push(args: Arrays, dargs: Some) -> Arrays:
        dzs: Arrays = backend.pushforward(g, args, dargs)[1]
        return dzs

    def pull(args: Arrays, cotangents: Some) -> Arrays:
        again, back = backend.pullback(g, args)
        refuse_changed(backend, again, zs, ONCE)
        grads: Arrays = back(cotangents)
        return grads

    return push, pull


def _flat(closed: Function, has_aux: bool) -> Function:
    """(*ys, *aux) of f, whose captured arrays are arguments; of aux what is floating."""
    if not has_aux:
        return closed

    def flat(*args: Array) -> Arrays:
        ys, aux = closed(*args)
        return (*ys, *_floating(aux))

    return flat


def _differentiable(x: Any) -> bool:
    return is_array(x) and number_kind(x) in ("floating", "complex")


def _floating(aux: Arrays = ()) -> Arrays:
    return tuple(a for a in aux if _differentiable(a))


def _with_floating(aux: Arrays, floating: Arrays) -> Arrays:
    """aux with these in place of what is floating."""
    rest = iter(floating)
    return tuple(next(rest) if _differentiable(a) else a for a in aux)


def _spread(some: Some, places: Sequence[int], n: int) -> tuple[Array | None, ...]:
    """n entries: some at their places, None elsewhere."""
    given = dict(zip(places, some, strict=True))
    return tuple(given.get(i) for i in range(n))


def _repeated(x: Array, k: int) -> Array:
    return xp.broadcast_to(x, (k, *x.shape))


def _first_of(x: Array, k: int) -> Array:
    """x and k - 1 zeros."""
    return xp.concat([x[None], _repeated(xp.zeros_like(x), k - 1)]) if k > 1 else x[None]
