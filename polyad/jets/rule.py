"""How a rule finds the innermost jets among its arguments.

Each call of a pushforward has a level of its own, higher than all that began
before it. A rule sees one level: arguments of that level are split in primal
and derivative parts, and everything else, jets of lower levels included, is a
constant to it. That is all it takes to keep nested perturbations apart.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from polyad.arrays import xp
from polyad.backends import owner
from polyad.compositions import ACTIVATIONS, COMPOSITIONS, MATRIX_COMPOSITIONS
from polyad.errors import UnsupportedError

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}

__all__ = [
    "RULES",
    "Rule",
    "apply",
    "compact",
    "constant",
    "first_order",
    "foreign",
    "has_jets",
    "lift",
    "moves",
    "ndim",
    "plain",
    "primal",
    "register",
    "tangent",
]


def register(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule `(level, *args, **kwargs)` under these names of the array API."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return enter


def first_order(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule that knows tangents only; jets of another kind derive theirs from it."""

    def enter(rule: Rule) -> Rule:
        register(*names)(lambda level, *args, **kwargs: level.kind.derived(level, rule, args, kwargs))
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
    jets, ndarrays = _jets((*args, *kwargs.values()) if kwargs else args)
    if not jets:
        return call(name, *args, **kwargs)
    rule = RULES.get(name)
    if rule is None:
        raise UnsupportedError(
            f"polyad's jets have no rule for {name!r}. Write it with functions that have one "
            f"(dir(polyad.xp) lists them), or choose backend='autograd', 'jax' or 'torch'"
        )
    if ndarrays:
        args = _of_framework(args, owner(jets[0]), jets[0])
    level = jets[0]._jet_level if len(jets) == 1 else max(jet._jet_level for jet in jets)
    y = rule(level, *args, **kwargs)
    trail = level.trail
    if trail.apart and (len(args) > 1 or kwargs or name not in trail.numberwise) and rule not in _compositions:
        trail.pass_through(level, name, args, kwargs, y)
    return y


def foreign(args: Any) -> None:
    """Note that the jets among these arguments go through a function that is not polyad's own."""
    for jet in _jets(args)[0]:
        while hasattr(type(jet), "_jet_level"):  # jets of a pass around are made of others
            jet._jet_level.trail.own = False
            jet = jet.primal


def _jets(args: Iterable[Any]) -> tuple[list[Any], bool]:
    """The jets among the arguments, those in lists and tuples included, and whether there is an ndarray."""
    found: list[Any] = []
    ndarrays = False
    for arg in args:
        kind = type(arg)
        if hasattr(kind, "_jet_level"):
            found.append(arg)
        elif kind is np.ndarray:
            ndarrays = True
        elif isinstance(arg, (list, tuple)):
            some, more = _jets(arg)
            found += some
            ndarrays = ndarrays or more
    return found, ndarrays


def _of_framework(args: Any, backend: Any, like: Any) -> Any:
    """The arguments, ndarrays as arrays of the framework that the jet beside them is made of, and on its device."""
    if backend.host:
        return args
    if isinstance(args, list | tuple):
        return type(args)(_of_framework(arg, backend, like) for arg in args)
    return backend.constant(args, like) if type(args) is np.ndarray else args


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """The function of this name in the namespace of its arguments."""
    f = xp
    for part in name.split("."):
        f = getattr(f, part)
    return f(*args, **kwargs)


def has_jets(args: Any) -> bool:
    """Whether there is a jet among the arguments, those in lists and tuples included."""
    return bool(_jets(args)[0])


def moves(level: int, x: Any) -> bool:
    """Whether x has derivative parts of this level."""
    return hasattr(type(x), "_jet_level") and x._jet_level == level  # the type knows at once what it lacks


def primal(level: int, x: Any) -> Any:
    """x without its parts of this level."""
    return x.primal if moves(level, x) else x


def tangent(level: int, x: Any) -> Any:
    """The directions of x at this level, shape (k, *x.shape), or None."""
    return x.tangent if moves(level, x) else None


def compact(level: int, x: Any) -> Any:
    """As tangent, but axes along which it does not vary may have length 1; for rules that broadcast."""
    return x.compact if moves(level, x) else None


def plain(level: Any, x: Any) -> tuple[Any, ...]:
    """The parts of x of its own shape at this level; None is zero."""
    return x.plain if moves(level, x) else (None,) * level.plain


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


_sums = {name: ACTIVATIONS[name] for name in ("log_softmax", "logsumexp", "softmax")}
_composed = {**COMPOSITIONS, **_sums, **{f"linalg.{name}": f for name, f in MATRIX_COMPOSITIONS.items()}}
for _name, _composition in _composed.items():
    register(_name)(lambda level, *args, _f=_composition, **kwargs: _f(*args, **kwargs))
_compositions = frozenset(RULES[name] for name in _composed)
"""Rules that call functions which have rules themselves."""
