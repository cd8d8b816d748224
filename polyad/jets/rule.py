"""How a rule finds the innermost jets among its arguments.

Each call of a pushforward has a level of its own, higher than all that began
before it. A rule sees one level: arguments of that level are split in primal
and tangent, and everything else, jets of lower levels included, is a constant
to it. That is all it takes to keep nested perturbations apart.
"""

from collections.abc import Callable, Iterator
from typing import Any

from polyad.arrays import xp
from polyad.compositions import COMPOSITIONS, MATRIX_COMPOSITIONS
from polyad.errors import UnsupportedError

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}

__all__ = ["RULES", "Rule", "apply", "apply_levels", "constant", "lift", "ndim", "primal", "register", "tangent"]


def register(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule `(level, *args, **kwargs)` under these names of the array API."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return enter


def constant(*names: str) -> None:
    """Functions that are piecewise constant or do not look at the values."""
    for name in names:
        register(name)(_constant_rule(name))


def _constant_rule(name: str) -> Rule:
    def rule(level: int, *args: Any, **kwargs: Any) -> Any:
        plain = [_without(level, arg) for arg in args]
        return call(name, *plain, **{key: _without(level, arg) for key, arg in kwargs.items()})

    return rule


def apply(name: str, *args: Any, **kwargs: Any) -> Any:
    """The function of this name on arguments of which some are jets."""
    level = max(apply_levels((*args, *kwargs.values()) if kwargs else args), default=0)
    if not level:
        return call(name, *args, **kwargs)
    if name not in RULES:
        raise UnsupportedError(
            f"polyad's jets have no rule for {name!r}. Write it with functions that have one "
            f"(dir(polyad.xp) lists them), or choose backend='autograd', 'jax' or 'torch'"
        )
    return RULES[name](level, *args, **kwargs)


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """The function of this name in the namespace of its arguments."""
    f = xp
    for part in name.split("."):
        f = getattr(f, part)
    return f(*args, **kwargs)


def apply_levels(args: Any) -> Iterator[int]:
    """Levels of the jets among the arguments, those in lists and tuples included."""
    for arg in args:
        if isinstance(arg, list | tuple):
            yield from apply_levels(arg)
        else:
            level = getattr(arg, "_jet_level", None)
            if level is not None:
                yield level


def primal(level: int, x: Any) -> Any:
    """x without its part of this level."""
    return x.primal if getattr(x, "_jet_level", None) == level else x


def tangent(level: int, x: Any) -> Any:
    """The part of x of this level, shape (k, *x.shape), or None."""
    return x.tangent if getattr(x, "_jet_level", None) == level else None


def _without(level: int, arg: Any) -> Any:
    if isinstance(arg, list | tuple):
        return type(arg)(_without(level, x) for x in arg)
    return primal(level, arg)


def ndim(x: Any) -> int:
    """Number of axes; 0 for Python numbers."""
    return getattr(x, "ndim", 0)


def lift(t: Any, n: int) -> Any:
    """A tangent (k, *shape) ready to broadcast with arrays of n axes: (k, 1, ..., *shape)."""
    missing = n + 1 - t.ndim
    return xp.reshape(t, (t.shape[0],) + (1,) * missing + tuple(t.shape[1:])) if missing > 0 else t


_composed = {**COMPOSITIONS, **{f"linalg.{name}": f for name, f in MATRIX_COMPOSITIONS.items()}}
for _name, _composition in _composed.items():
    register(_name)(lambda level, *args, _f=_composition, **kwargs: _f(*args, **kwargs))
