"""Which pass runs a derivative, and why.

One rule for all backends: a pass that the framework has itself, the cheaper
one by the number of sweeps it needs.
"""

import sys
import warnings
from dataclasses import dataclass

from polyad.backends.base import Backend
from polyad.errors import ModeError, PolyadWarning

MODES = ("auto", "forward", "reverse", "finite_difference")

__all__ = ["MODES", "Plan", "choose", "refuse_unknown"]


@dataclass(frozen=True)
class Plan:
    """A mode, the number of sweeps it takes, and the reason."""

    mode: str
    sweeps: int
    why: str


# A pushforward of vmap(jvp) against one row of the tape, per sweep, measured on
# tanh MLPs (CPU, one thread, 2026-11): 4.6 to 1.0 on torch with 3 inputs and 3
# outputs falls to 1.6 with 16 outputs. Rows win unless they are twice as many.
ROWS_PER_COLUMN = 2


# sum(tanh(w)^2) of 10 000 entries: 0.1 ms, its gradient in forward mode 0.9 s (NumPy, one thread, 2026-11).
MANY_COLUMNS = 10_000


_said: set[str] = set()


def _say_once(name: str, columns: int) -> None:
    if name in _said:
        return
    _said.add(name)
    warnings.warn(
        f"a gradient of {columns} entries takes as many directions on {name}, which has forward mode only. "
        f"One sweep is enough with backend='autograd', or with arrays of JAX or torch",
        PolyadWarning,
        stacklevel=_levels_up(),
    )


def _levels_up() -> int:
    """The stacklevel of the caller that is not of polyad."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("polyad."):
        frame, level = frame.f_back, level + 1
    return level


def choose(backend: Backend, mode: str, columns: int, rows: int | None) -> Plan:
    """The plan for a Jacobian of so many columns (inputs) and rows (outputs).

    rows     None where only running f would tell
    raises   ModeError for a mode that does not exist
    """
    refuse_unknown(mode)
    sweeps = {"forward": columns, "finite_difference": 2 * columns, "reverse": rows or 1}
    if mode != "auto":
        return Plan(mode, sweeps[mode], "asked for")
    if len(backend.modes) == 1:
        only = backend.modes[0]
        if only == "forward" and columns >= MANY_COLUMNS > (rows or columns):
            _say_once(backend.name, columns)
        return Plan(only, sweeps[only], f"the only pass that {backend.name} has")
    if rows is None or rows <= ROWS_PER_COLUMN * columns:
        return Plan("reverse", sweeps["reverse"], f"{_many(rows or 1, 'row')} against {_many(columns, 'column')}")
    return Plan("forward", columns, f"{_many(columns, 'column')} against {_many(rows, 'row')}")


def refuse_unknown(mode: str) -> None:
    """raises  ModeError for a mode that does not exist"""
    if mode not in MODES:
        raise ModeError(f"there is no mode {mode!r}; choose one of {', '.join(map(repr, MODES))}")


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"
