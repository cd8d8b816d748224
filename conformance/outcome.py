"""What one case gave on one backend: a cell of the matrix, and the numbers behind it."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["FAILURES", "Cell", "Outcome"]

Cell = Literal["ok", "raises", "wrong", "silent zero", "gap", "unexpected pass", "skipped"]
"""ok: agrees with every witness. raises: an error instead of a number. wrong: another
number. silent zero: zero, where the derivative is not. gap: one of the last three,
known and documented. unexpected pass: a documented gap that is no longer there.
skipped: was not run, for the reason given."""

FAILURES: frozenset[Cell] = frozenset({"raises", "wrong", "silent zero", "unexpected pass"})


@dataclass(frozen=True)
class Outcome:
    """A cell.

    mode        of an operation: forward, reverse, RoR, FoR, RoF, FoF, RRR, vmap, jit; else ""
    difference  largest to the witness, relative to the largest entry of the leaf; None where there is none
    worst       the leaf that differs most, as a person would type it
    witness     what it was compared with
    message     what failed, or the error that was raised
    reason      of a gap or a skip
    link        to the defect in the framework, where it is known
    found       of a gap: the cell without the gap, raises, wrong or silent zero
    """

    group: str
    case: str
    backend: str
    dtype: str = "float64"
    device: str = "cpu"
    mode: str = ""
    cell: Cell = "ok"
    difference: float | None = None
    tolerance: float | None = None
    worst: str = ""
    witness: str = ""
    seconds: float = 0.0
    message: str = ""
    reason: str = ""
    link: str = ""
    found: str = ""
    source: str = ""
    tags: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        return self.cell in FAILURES

    def json(self) -> dict[str, Any]:
        return asdict(self)
