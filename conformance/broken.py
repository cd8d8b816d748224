"""Adapters that are wrong on purpose: a suite that lets one of them pass is no suite.

A damage is a function (xs, gradients) -> gradients on the result of every
pullback, the inner ones too.
"""

from collections.abc import Callable
from typing import Any

from polyad import stop_gradient, xp
from polyad.backends.base import Array, Arrays, Backend, Function

Damage = Callable[[Arrays, Arrays], Arrays]

__all__ = ["DAMAGES", "Damage", "broken"]


def broken(adapter: type[Backend], damage: Damage, name: str = "broken") -> type[Backend]:
    """The adapter under another name, its pullback damaged.

    It takes the arrays of the adapter for its own, and for guests where the
    adapter is known too; inner derivatives are then those of the adapter.
    """

    class Broken(adapter):  # type: ignore[misc, valid-type]
        wraps = frozenset({adapter.name})

        def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
            ys, pull, *aux = super().pullback(f, xs, has_aux)
            return (ys, lambda cotangents: damage(xs, pull(cotangents)), *aux)

    Broken.name = name
    return Broken


def each(change: Callable[[Array], Array]) -> Damage:
    """The same change to every gradient."""
    return lambda xs, gradients: tuple(map(change, gradients))


def _forgets(i: int) -> Damage:
    def forgets(xs: Arrays, gradients: Arrays) -> Arrays:
        return tuple(0 * g if j == i % len(xs) else g for j, g in enumerate(gradients))

    return forgets


def _transposed(gradient: Array) -> Array:
    if len(gradient.shape) != 2:
        return gradient
    return xp.reshape(xp.permute_dims(gradient, (1, 0)), tuple(gradient.shape))


def _one_entry_off(gradient: Array) -> Array:
    """Adds 1e-8 of the first entry to the whole: seen in float64 only."""
    return gradient + 1e-8 * xp.reshape(gradient, (-1,))[0]


def _exchanged(xs: Arrays, gradients: Arrays) -> Arrays:
    """The last two gradients of equal shapes change places."""
    for i in range(len(xs) - 1, 0, -1):
        for j in range(i - 1, -1, -1):
            if tuple(xs[i].shape) == tuple(xs[j].shape):
                moved = list(gradients)
                moved[i], moved[j] = moved[j], moved[i]
                return tuple(moved)
    return gradients


def _refuses(xs: Arrays, gradients: Arrays) -> Arrays:
    raise RuntimeError("no rule for this operation")


DAMAGES: dict[str, Damage] = {
    "cut_off": each(stop_gradient),  # right values, but a constant to the derivative around it
    "exchanged": _exchanged,
    "forgets_the_first": _forgets(0),
    "forgets_the_last": _forgets(-1),
    "halved": each(lambda g: 0.5 * g),
    "inexact": each(_one_entry_off),
    "negated": each(lambda g: -g),
    "not_a_number": each(lambda g: g * float("nan")),
    "raises": _refuses,
    "single_precision": each(lambda g: xp.astype(g, xp.float32)),
    "transposed": each(_transposed),
    "zero": each(lambda g: 0 * g),
}
