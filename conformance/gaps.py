"""What is known not to work: backend, versions, cases, reason, link. A gap that is gone is a failure.

Gaps are the one place of the suite in which a backend has a name.
"""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace

from packaging.specifiers import SpecifierSet

from polyad.backends import backends

from .outcome import Cell, Outcome

__all__ = ["GAPS", "Gap", "against"]


@dataclass(frozen=True)
class Gap:
    """Cells that fail for a known reason.

    versions  of the framework, a PEP 440 specifier; "" is all of them
    cases     patterns of "group/case" or "group/case/mode", with * and ?
    found     what the cells are without the gap
    dtypes    in which it is seen
    """

    backend: str
    versions: str
    cases: tuple[str, ...]
    reason: str
    link: str
    found: Cell
    dtypes: tuple[str, ...] = ("float64", "float32")

    def covers(self, outcome: Outcome) -> bool:
        """Whether the outcome is of one of these cells."""
        place = f"{outcome.group}/{outcome.case}" + (f"/{outcome.mode}" if outcome.mode else "")
        return (
            outcome.backend == self.backend
            and outcome.dtype in self.dtypes
            and any(fnmatch.fnmatchcase(place, pattern) for pattern in self.cases)
            and self._is_of_this_version()
        )

    def _is_of_this_version(self) -> bool:
        version = next((info.version for info in backends() if info.name == self.backend), None)
        return version is not None and SpecifierSet(self.versions).contains(version, prereleases=True)


GAPS: tuple[Gap, ...] = (
    Gap(
        "torch",
        "",
        ("errors/float(x) inside of f is right or refused",),
        "float(x), x.item() and x.tolist() make constants everywhere in torch, and polyad cannot see them",
        "https://docs.pytorch.org/docs/stable/generated/torch.Tensor.item.html",
        "wrong",
    ),
)


def against(gaps: Sequence[Gap], outcome: Outcome) -> Outcome:
    """The outcome, as a gap or an unexpected pass where one of the gaps is about it."""
    if outcome.cell == "skipped":
        return outcome
    gap = next((gap for gap in gaps if gap.covers(outcome)), None)
    if gap is None:
        return outcome
    known = replace(outcome, reason=gap.reason, link=gap.link, found=gap.found)
    if outcome.cell == gap.found:
        return replace(known, cell="gap")
    if outcome.cell == "ok":
        return replace(known, cell="unexpected pass", message="a documented gap that is no longer there: remove it")
    return known
