"""What was chosen at each level of nested derivatives, written down while they run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from polyad.plans import Plan

__all__ = ["Step", "explained", "forgotten", "recorded", "recording", "step"]


@dataclass
class Step:
    """One derivative: which pass ran it, what it keeps for the pass around it, and the derivatives inside of f.

    Of vmap: how it goes over the points; it keeps what is in f.
    """

    operator: str
    backend: str = ""
    plan: Plan | None = None
    strategy: str = ""
    reason: str = ""
    inner: list[Step] = field(default_factory=list)

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Two or three lines a level, the inner ones indented."""
        margin = "    " * depth
        plan = self.plan or Plan("reverse", 1, "")
        sweeps = f"{plan.sweeps} sweep{'s' * (plan.sweeps != 1)}"
        why = f": {plan.why}" if plan.why else ""
        yield f"{margin}{self.operator} on {self.backend}: {plan.mode}, {sweeps}{why}"
        if plan.prediction:
            yield f"{margin}  {plan.prediction}"
        if depth and self.strategy:
            yield f"{margin}  keeps for the pass around it: {self.strategy}: {self.reason}"
        for inner in self.inner:
            yield from inner.lines(depth + 1)


_current: ContextVar[Step | None] = ContextVar("polyad_step", default=None)


@contextmanager
def recording() -> Iterator[Step]:
    """A root whose inner steps are the derivatives that run in the block."""
    root = Step("")
    token = _current.set(root)
    try:
        yield root
    finally:
        _current.reset(token)


def recorded() -> bool:
    """Whether somebody records here."""
    return _current.get() is not None


_NOBODY: AbstractContextManager[Step] = nullcontext(Step("what nobody records"))


def step(operator: str, backend: str, strategy: str = "", reason: str = "") -> AbstractContextManager[Step]:
    """The step of one derivative, entered in the one around it where somebody records.

    f is evaluated more than once by some passes; equal steps are entered once.
    """
    around = _current.get()
    return _NOBODY if around is None else _entered(around, Step(operator, backend, None, strategy, reason))


@contextmanager
def _entered(around: Step, made: Step) -> Iterator[Step]:
    token = _current.set(made)
    try:
        yield made
    finally:
        _current.reset(token)
        if made not in around.inner:
            around.inner.append(made)


def explained(strategy: str, reason: str) -> None:
    """Say that the derivative that is running keeps something else than was asked for."""
    made = _current.get()
    if made is not None:
        made.strategy, made.reason = strategy, reason


def forgotten() -> None:
    """Say that the function of the derivative that is running runs again, in another way."""
    made = _current.get()
    if made is not None:
        made.inner.clear()
