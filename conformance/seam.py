"""The suite as one iterator, on the functions of the present runner."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from . import runner
from .cases import CASES, Case
from .outcome import Cell, Outcome
from .runner import DTYPES

__all__ = ["DEVICES", "DTYPES", "GROUPS", "Run", "cases_of", "run"]

GROUPS = ("documented examples",)
DEVICES = ("cpu", "gpu")


@dataclass(frozen=True)
class Run:
    """The outcomes, one after the other, and how many there will be."""

    cells: tuple[tuple[Case, str, str], ...]
    device: str

    def __len__(self) -> int:
        return len(self.cells)

    def __iter__(self) -> Iterator[Outcome]:
        for case, backend, dtype in self.cells:
            yield _outcome(case, backend, dtype, self.device)


def run(
    backends: Sequence[str],
    groups: Sequence[str],
    dtypes: Sequence[str],
    device: str,
    jobs: int = 1,
    cases: Sequence[str] = (),
) -> Run:
    """The cases of these groups whose name is one of the patterns, on these backends."""
    named = [
        case
        for group in groups
        for case in cases_of(group)
        if not cases or any(fnmatch.fnmatchcase(case.name, pattern) for pattern in cases)
    ]
    return Run(tuple((case, backend, dtype) for case in named for backend in backends for dtype in dtypes), device)


def cases_of(group: str) -> tuple[Case, ...]:
    """The cases of a group, in order."""
    return CASES if group in GROUPS else ()


def _outcome(case: Case, backend: str, dtype: str, device: str) -> Outcome:
    known = {"source": case.source, "tags": tuple(sorted(case.tags)), "tolerance": case.tolerance[dtype]}
    if device != "cpu":
        reason = f"the cases of this version run on the cpu only, not on {device}"
        return Outcome(GROUPS[0], case.name, backend, dtype, device, cell="skipped", reason=reason, **known)
    found = runner.run(case, backend, dtype)
    cell: Cell = "ok" if found.passed else "raises" if found.trace else "wrong"
    return Outcome(
        *(GROUPS[0], case.name, backend, dtype, device),
        cell=cell,
        difference=found.difference,
        worst=found.worst,
        witness="a reference derived by hand",
        seconds=found.seconds or 0.0,
        message="; ".join(found.failures),
        **known,
    )
