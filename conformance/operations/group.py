"""The operations as a group of the suite."""

import fnmatch
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from polyad.errors import PrecisionError

from ..devices import MissingDeviceError, exact_and_quick, place
from ..modes import MODES
from ..outcome import Outcome
from . import OPERATIONS, Operation
from .matrix import cells
from .witness import WITNESS

__all__ = ["Group"]


class Listed(NamedTuple):
    """What `polyad conformance --list` says of an operation."""

    name: str
    source: str
    tags: tuple[str, ...]


class Group:
    """Each operation in each mode, in the first of the precisions that are asked for: rules have none of their own."""

    cases = tuple(Listed(o.name, WITNESS, o.standard) for o in OPERATIONS)

    def count(self, dtypes: Sequence[str], cases: Sequence[str], share: tuple[int, int]) -> int:
        """How many outcomes there will be."""
        i, n = share
        return len(self._chosen(cases)[i::n]) * len(MODES) * bool(dtypes)

    def missing(self, backend: str, dtypes: Sequence[str], cases: Sequence[str], reason: str) -> Iterator[Outcome]:
        """The outcomes where there is no such backend, or no such device."""
        for operation in self._chosen(cases):
            yield from self._skipped(operation.name, backend, dtypes[0], reason)

    def outcomes(
        self, adapter: Any, dtypes: Sequence[str], device: str, cases: Sequence[str], share: tuple[int, int]
    ) -> Iterator[Outcome]:
        """One after the other; of n shares number i."""
        i, n = share
        for operation in self._chosen(cases)[i::n]:
            for dtype in dtypes[:1]:
                yield from self._on(operation, adapter, dtype, device)

    def _on(self, operation: Operation, adapter: Any, dtype: str, device: str) -> Iterator[Outcome]:
        try:
            with exact_and_quick(device):
                found = list(cells(operation, adapter, tuple(MODES), dtype, place(adapter, device)))
        except (MissingDeviceError, PrecisionError) as error:
            found = self._skipped(operation.name, adapter.name, dtype, str(error))
        yield from (replace(outcome, device=device) for outcome in found)

    def _skipped(self, name: str, backend: str, dtype: str, reason: str) -> list[Outcome]:
        blank = Outcome("operations", name, backend, dtype, cell="skipped", reason=reason)
        return [replace(blank, mode=mode) for mode in MODES]

    def _chosen(self, cases: Sequence[str]) -> list[Operation]:
        patterns = cases or ("*",)
        return [o for o in OPERATIONS if any(fnmatch.fnmatchcase(o.name, pattern) for pattern in patterns)]
