"""The switching rule: what an inner derivative keeps for the pass around it.

taped                 the framework's own graph of it, until it is differentiated
recompute             its inputs alone; the pass around builds it again
forward_over_reverse  its inputs alone; the pass around makes one dual sweep

All give the same numbers. "auto" takes what was measured to be fastest for the
backend and lean enough (docs/nested.md); "off" is the framework untouched. Where
something that f captures cannot be seen, the derivative is taped.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from polyad.backends.base import Arrays, Backend, Captured, Function
from polyad.errors import ArgumentError
from polyad.plans import keeps
from polyad.steps import explained
from polyad.strategies import InputsOnly, recompute
from polyad.tuned import Choice

Sweep = Callable[..., tuple[Arrays, ...]]

POLICIES = ("auto", "off", "taped", "recompute", "forward_over_reverse")

__all__ = ["POLICIES", "nested_switching", "policy", "run", "switched"]

_policy: ContextVar[str | None] = ContextVar("polyad_nested_switching", default=None)


@contextmanager
def nested_switching(policy: str) -> Iterator[None]:
    """Choose what inner derivatives keep, in a `with` block of this thread and its tasks.

    policy  "auto", "off", or a strategy: "taped", "recompute", "forward_over_reverse".
            Outside of any block POLYAD_NESTED_SWITCHING decides, as it is at the first derivative, else "auto"
    raises  ArgumentError for another name

    Where a backend does not have the strategy, or cannot see what a function
    captures, the derivative is taped: the numbers are the same.
    """
    token = _policy.set(_known(policy, "nested_switching"))
    try:
        yield
    finally:
        _policy.reset(token)


def policy() -> str:
    """The policy of this place."""
    return _policy.get() or _of_environment()


@cache
def _of_environment() -> str:
    """What the variable says the first time it matters: reading it costs more than all else that a level decides."""
    return _known(os.environ.get("POLYAD_NESTED_SWITCHING") or "auto", "POLYAD_NESTED_SWITCHING")


def _known(name: str, where: str) -> str:
    if name not in POLICIES:
        raise ArgumentError(f"{where}: there is no policy {name!r}; choose one of {', '.join(map(repr, POLICIES))}")
    return name


def strategy(backend: Backend, mode: str = "gradient", tuned: Choice | None = None) -> tuple[str, str]:
    """(the strategy that the policy of this place means for a pass of this mode, why).

    mode   "gradient" for one sweep; "forward" or "reverse" for many, "auto" where that is not known; "jets"
    tuned  what was measured for this call, which "auto" then means
    """
    asked = policy()
    if "reverse" not in backend.modes:
        return "taped", "a forward pass keeps its directions and no graph"
    if asked == "auto" and tuned is not None and tuned.keeps in backend.strategies:
        return tuned.keeps, tuned.why
    if asked == "auto" and not backend.may_compile:
        return _usual(backend, mode)
    if asked == "auto":
        compiled = backend.compiles_here()
        return keeps(backend, mode, compiled, compiled and backend.loops_here()) or backend.preferred_strategy(mode)
    if asked == "off":
        return "taped", "switching is off"
    if asked in backend.strategies:
        return asked, "asked for"
    return "taped", f"{backend.name} does not have {asked}"


@cache
def _usual(backend: Backend, mode: str) -> tuple[str, str]:
    """What "auto" means where nothing is compiled: it is asked for each derivative of a small model."""
    return keeps(backend, mode, False) or backend.preferred_strategy(mode)


def run(
    backend: Backend,
    sweep: Sweep,
    f: Function,
    xs: Arrays,
    captured: Captured,
    beside: Arrays = (),
    first_order: bool = True,
    name: str = "taped",
) -> tuple[Arrays, ...]:
    """sweep(backend, f, *xs, *beside), a tuple of tuples of arrays, under the strategy of this name.

    captured     gives the arrays that can be found in f without running it
    first_order  whether the passes of the sweep stand side by side; those that
                 stand inside each other are recomputed, not dual
    """
    if not xs:
        name = "taped"
    if name == "forward_over_reverse" and not first_order:
        name = "recompute"
        explained(name, "the rule of a dual sweep is one for first derivatives")
    if name == "taped":
        return sweep(backend, f, *xs, *beside)
    if name == "forward_over_reverse":
        return sweep(InputsOnly(backend, captured, dual=True), f, *xs, *beside)
    lengths: list[int] = []

    def flat(f: Function, *args: Any) -> Arrays:
        groups = sweep(backend, f, *args)
        lengths[:] = map(len, groups)
        return tuple(array for group in groups for array in group)

    arrays = iter(recompute(backend, flat, f, xs, captured, beside))
    return tuple(tuple(next(arrays) for _ in range(n)) for n in lengths)


def switched(backend: Backend, captured: Captured, tuned: Choice | None = None) -> Any:
    """The backend for a pass that ends later than the call that begins it, as that of vjp does."""
    name, _ = strategy(backend, tuned=tuned)
    return backend if name == "taped" else InputsOnly(backend, captured, dual=name == "forward_over_reverse")
