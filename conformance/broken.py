"""Adapters that are wrong on purpose: a suite that lets one of them pass is no suite.

Each of them is a real mistake of adapters that were seen, or of the rules in them.
`rejected_by` names the cases that are there for it: they must fail, whatever
else does.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from polyad import register_backend, stop_gradient, xp
from polyad.backends import get
from polyad.backends.base import Array, Arrays, Backend, Function

Break = Callable[[type[Backend]], type[Backend]]
Damage = Callable[[Arrays, Arrays], Arrays]

__all__ = ["BREAKAGES", "Breakage", "broken", "standing_in"]


@dataclass(frozen=True)
class Breakage:
    """A mistake, and which cases are there for it.

    broken       the adapter with the mistake, of a sound one
    rejected_by  patterns of "group/case": every case of these must fail
    """

    name: str
    broken: Break
    rejected_by: tuple[str, ...]
    float32_too: bool = True


@contextmanager
def standing_in(name: str, broken: Break) -> Iterator[Backend]:
    """The broken adapter in the place of the sound one of this name, whose arrays are then its own."""
    sound = get(name)
    register_backend(name, broken(type(sound)))
    try:
        yield get(name)
    finally:
        register_backend(name, sound)


# Damage to what a pullback gives.


def broken(adapter: type[Backend], damage: Damage) -> type[Backend]:
    """The adapter, its pullback damaged: (xs, gradients) -> gradients, the inner ones too."""

    class Broken(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            return (ys, lambda cotangents: damage(xs, pull(cotangents)), *aux)

        def last_pull(self, pull: Any, cotangents: Any) -> Any:
            return pull(cotangents)

    return Broken


def gradients(damage: Damage) -> Break:
    """Every gradient through the damage."""
    return lambda adapter: broken(adapter, damage)


def each(change: Callable[[Array], Array]) -> Break:
    """The same change to every gradient."""
    return gradients(lambda xs, grads: tuple(map(change, grads)))


def _forgets(i: int) -> Damage:
    def forgets(xs: Arrays, grads: Arrays) -> Arrays:
        return tuple(0 * g if j == i % len(xs) else g for j, g in enumerate(grads))

    return forgets


def _transposed(gradient: Array) -> Array:
    if len(gradient.shape) != 2:
        return gradient
    return xp.reshape(xp.permute_dims(gradient, (1, 0)), tuple(gradient.shape))


def _transposed_where_square(gradient: Array) -> Array:
    square = len(gradient.shape) == 2 and gradient.shape[0] == gradient.shape[1]
    return xp.permute_dims(gradient, (1, 0)) if square else gradient


def _turned_for_views(xs: Arrays, grads: Arrays) -> Arrays:
    """The gradient of an array whose entries lie in another order in memory comes out in that order."""
    return tuple(xp.flip(g) if _is_view(x) else g for x, g in zip(xs, grads, strict=True))


def _is_view(x: Array) -> bool:
    x = getattr(x, "_value", x)  # of a box of autograd
    return not (x.flags.c_contiguous if isinstance(x, np.ndarray) else getattr(x, "is_contiguous", lambda: True)())


def _one_entry_off(gradient: Array) -> Array:
    """Adds 1e-8 of the first entry to the whole: seen in float64 only."""
    return gradient if 0 in gradient.shape else gradient + 1e-8 * xp.reshape(gradient, (-1,))[0]


def _exchanged(xs: Arrays, grads: Arrays) -> Arrays:
    """The last two gradients of equal shapes change places."""
    for i in range(len(xs) - 1, 0, -1):
        for j in range(i - 1, -1, -1):
            if tuple(xs[i].shape) == tuple(xs[j].shape):
                moved = list(grads)
                moved[i], moved[j] = moved[j], moved[i]
                return tuple(moved)
    return grads


def _in_single_precision(gradient: Array) -> Array:
    return xp.astype(xp.astype(gradient, xp.float32), gradient.dtype)


# Damage to the primitives themselves.


def _zero(adapter: type[Backend]) -> type[Backend]:
    """Both passes give zero."""

    class Zero(broken(adapter, lambda xs, grads: tuple(0 * g for g in grads))):  # type: ignore[misc]
        def pushforward(self, f: Function, xs: Arrays, dxs: Any, has_aux: bool = False) -> Any:
            ys, dys, *aux = super().pushforward(f, xs, dxs, has_aux)
            return (ys, tuple(0 * dy for dy in dys), *aux)

        def pushforwards(self, f: Function, xs: Arrays, dxs: Any, has_aux: bool = False) -> Any:
            ys, dys, *aux = super().pushforwards(f, xs, dxs, has_aux)
            return (ys, tuple(0 * dy for dy in dys), *aux)

    return Zero


def _zero_pushforward(adapter: type[Backend]) -> type[Backend]:
    class ZeroForward(_zero(adapter)):  # type: ignore[misc]
        pullback = adapter.pullback
        last_pull = adapter.last_pull
        push_mode = Backend.push_mode  # by its forward pass, also where another is faster

    return ZeroForward


def _halved_tangent(adapter: type[Backend]) -> type[Backend]:
    class Halved(adapter):  # type: ignore[misc, valid-type]
        push_mode = Backend.push_mode

        def pushforward(self, f: Function, xs: Arrays, dxs: Any, has_aux: bool = False) -> Any:
            ys, dys, *aux = super().pushforward(f, xs, dxs, has_aux)
            return (ys, tuple(0.5 * dy for dy in dys), *aux)

    return Halved


def _drops_captured(adapter: type[Backend]) -> type[Backend]:
    """An inner derivative knows its arguments alone, as a custom rule of torch does that closes over arrays."""

    class Drops(adapter):  # type: ignore[misc, valid-type]
        strategies = ("recompute",)  # with one alone, no measurement decides

        def aside(self, *args: Any) -> Any:
            found = super().aside(*args)
            if found is None:
                return None
            zs, captured, closed, dual = found
            held = tuple(map(self.stop_gradient, captured))
            return zs, (), lambda *xs: closed(*xs, *held), dual

        def preferred_strategy(self, mode: str) -> tuple[str, str]:
            return "recompute", "always"

    return Drops


def _holds_cotangents(adapter: type[Backend]) -> type[Backend]:
    """A pullback whose cotangent is a constant to the pass around it."""

    class Holds(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            return (ys, lambda cts: pull(tuple(None if ct is None else stop_gradient(ct) for ct in cts)), *aux)

        def last_pull(self, pull: Any, cotangents: Any) -> Any:
            return pull(cotangents)

    return Holds


def _remembers(adapter: type[Backend]) -> type[Backend]:
    """Gradients are kept by the shapes of arguments and cotangents, and given again at the next point."""

    class Remembers(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            kept = self.__dict__.setdefault("kept", {})

            def pulled(cotangents: Any) -> Any:
                shapes = tuple(None if ct is None else tuple(ct.shape) for ct in cotangents)
                key = (
                    getattr(f, "__code__", f),
                    tuple(tuple(x.shape) for x in xs),
                    shapes,
                    str(ys[:1] and ys[0].dtype),
                )
                if key not in kept:
                    kept[key] = tuple(map(stop_gradient, pull(cotangents)))
                return kept[key]

            return (ys, pulled, *aux)

        def last_pull(self, pull: Any, cotangents: Any) -> Any:
            return pull(cotangents)

    return Remembers


def _accumulates(adapter: type[Backend]) -> type[Backend]:
    """A pullback that adds to what it gave before, as y.backward() does to x.grad."""

    class Accumulates(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            total: list[Any] = []

            def pulled(cotangents: Any) -> Any:
                grads = pull(cotangents)
                total[:] = [a + b for a, b in zip(total, grads, strict=True)] if total else grads
                return tuple(total)

            return (ys, pulled, *aux)

        def last_pull(self, pull: Any, cotangents: Any) -> Any:
            return pull(cotangents)

    return Accumulates


def _first_output_alone(adapter: type[Backend]) -> type[Backend]:
    """Of the cotangents of several outputs the first one counts."""

    class First(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            return (ys, lambda cts: pull((cts[0], *(None for _ in cts[1:]))), *aux)

        def last_pull(self, pull: Any, cotangents: Any) -> Any:
            return pull(cotangents)

    return First


def _redraws(adapter: type[Backend]) -> type[Backend]:
    """The value is that of one evaluation of f, the pullback that of another, with another random mask."""

    class Redraws(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, _, *aux = super().pullback(f, xs, has_aux)
            _, pull, *_ = super().pullback(f, xs, has_aux)
            return (ys, pull, *aux)

    return Redraws


def _advances_twice(adapter: type[Backend]) -> type[Backend]:
    """f is evaluated once for its value, which is thrown away: what it keeps moves twice."""

    class Twice(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            f(*xs)
            return super().pullback(f, xs, has_aux)

    return Twice


def _swallows(adapter: type[Backend]) -> type[Backend]:
    """What f raises becomes a zero."""

    class Swallows(adapter):  # type: ignore[misc, valid-type]
        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            def safe(*args: Array) -> Any:
                try:
                    return f(*args)
                except Exception:
                    zero = (xp.sum(0 * args[0]),)
                    return (zero, ()) if has_aux else zero

            return super().pullback(safe, xs, has_aux)

    return Swallows


def _ignores_none(adapter: type[Backend]) -> type[Backend]:
    """None among the tangents counts as one."""

    class Ignores(adapter):  # type: ignore[misc, valid-type]
        push_mode = Backend.push_mode

        def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Any], has_aux: bool = False) -> Any:
            full = tuple(xp.ones_like(x) if dx is None else dx for x, dx in zip(xs, dxs, strict=True))
            return super().pushforward(f, xs, full, has_aux)

    return Ignores


def _not_linear(adapter: type[Backend]) -> type[Backend]:
    """The tangent is cut to length one, as directions often are."""

    class Cut(adapter):  # type: ignore[misc, valid-type]
        push_mode = Backend.push_mode

        def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Any], has_aux: bool = False) -> Any:
            length = sum(xp.sum(dx * dx) for dx in dxs if dx is not None) ** 0.5
            return super().pushforward(f, xs, tuple(None if dx is None else dx / length for dx in dxs), has_aux)

    return Cut


def _refuses(xs: Arrays, grads: Arrays) -> Arrays:
    raise RuntimeError("no rule for this operation")


ADJOINT = "adapter laws/pullback is the adjoint of the pushforward"
EXAMPLES = "documented examples/[1-5]*"

BREAKAGES: tuple[Breakage, ...] = (
    Breakage("zero", _zero, (ADJOINT, "nested/order *", EXAMPLES)),  # a test asks all the others too
    Breakage("zero pullback", each(lambda g: 0 * g), (ADJOINT, "first order/gradient: a*", EXAMPLES)),
    Breakage("zero pushforward", _zero_pushforward, (ADJOINT, "first order/jvp: *", "nested/jvp inside, *")),
    Breakage("halved cotangent", each(lambda g: 0.5 * g), (ADJOINT, "first order/gradient: a*", EXAMPLES)),
    Breakage("halved tangent", _halved_tangent, (ADJOINT, "first order/jvp: *", "nested/jvp inside, *")),
    Breakage("negated", each(lambda g: -g), (ADJOINT, "first order/gradient: a*", EXAMPLES)),
    Breakage(
        "drops parameters",  # of two arguments or more, those of the first, as documented losses have them
        gradients(lambda xs, grads: _forgets(0)(xs, grads) if len(xs) > 1 else grads),
        (ADJOINT, "first order/gradient: a dict", "first order/gradient: nested trees", EXAMPLES),
    ),
    Breakage("forgets the last", gradients(_forgets(-1)), (ADJOINT, "first order/gradient: a dict", EXAMPLES)),
    Breakage(
        "drops captured arrays",
        _drops_captured,
        (
            "nested/captured: a leaf, auto",
            "nested/captured: a derived array, recompute",
            "nested/gradient inside, recompute",
        ),
    ),
    Breakage(
        "transposed", each(_transposed), (ADJOINT, "first order/gradient: one array", "nested/gradient inside, auto")
    ),
    Breakage(
        "float32 inside",
        each(_in_single_precision),
        (ADJOINT, "first order/gradient: one array", EXAMPLES),
        float32_too=False,
    ),
    Breakage("float32 out", each(lambda g: xp.astype(g, xp.float32)), ("adapter laws/pullback gives *",), False),
    Breakage(
        "remembers the last point",
        _remembers,
        ("adapter laws/pullback gives value and gradient", "first order/gradient: one array", EXAMPLES),
    ),
    Breakage(
        "mask redrawn", _redraws, ("adapter laws/f runs once in a pullback", "nested/a random mask is drawn once")
    ),
    Breakage(
        "state advanced twice",
        _advances_twice,
        ("adapter laws/f runs once in a pullback", "layers and state/a running mean that f keeps itself moves once"),
    ),
    Breakage(
        "error swallowed",
        _swallows,
        ("adapter laws/an exception leaves *", "errors/an exception inside of gradient *", "errors/the gradient of *"),
    ),
    Breakage(
        "cut off",  # right values, but a constant to the derivative around it
        each(stop_gradient),
        (
            *("nested/order 2: reverse of reverse, *", "nested/gradient inside, *", "documented examples/2*"),
            "adapter laws/order 2: reverse of reverse",
        ),
    ),
    Breakage(
        "holds cotangents",
        _holds_cotangents,
        ("nested/vjp inside, [art]*", "adapter laws/differentiable in the direction: * of reverse"),
    ),
    Breakage("exchanged", gradients(_exchanged), ("first order/vjp: the same array twice", "nested/a gradient of a *")),
    Breakage("inexact", each(_one_entry_off), (ADJOINT, "first order/gradient: one array"), float32_too=False),
    Breakage("not a number", each(lambda g: g * float("nan")), (ADJOINT, "first order/gradient: a*", EXAMPLES)),
    Breakage("raises", gradients(_refuses), (ADJOINT, "first order/gradient: a*", EXAMPLES)),
    Breakage("ignores None", _ignores_none, ("adapter laws/none is a zero tangent",)),
    Breakage("transposed where square", each(_transposed_where_square), ("adapter laws/square matrices *",)),
    Breakage("accumulates", _accumulates, ("adapter laws/a pullback may be called again", "adapter laws/* cotangent")),
    Breakage(
        "first output alone",
        _first_output_alone,
        ("adapter laws/pullback gives value and gradient", "adapter laws/one output in two places *"),
    ),
    Breakage(
        "views alone", gradients(_turned_for_views), ("adapter laws/views are arrays", "first order/gradient: strides")
    ),
    Breakage(
        "third argument",
        gradients(lambda xs, grads: (*grads[:2], *(2 * g for g in grads[2:]))),
        ("first order/gradient: nested trees",),
    ),
    Breakage("not linear", _not_linear, ("adapter laws/pushforward is linear*", "first order/jvp: *")),
)
