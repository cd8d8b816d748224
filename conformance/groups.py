"""The groups of cases by name."""

from typing import Any

from . import arguments, examples, fields, laws, nested, networks, refusals
from .case import Case

__all__ = ["GROUPS", "PROVIDERS", "cases_of"]

_CASES: dict[str, tuple[Case, ...]] = {
    "adapter laws": tuple(laws.CASES),
    "first order": (*arguments.CASES, *fields.CASES),
    "nested": tuple(nested.CASES),
    "documented examples": examples.CASES,
    "layers and state": tuple(networks.CASES),
    "errors": tuple(refusals.CASES),
}

PROVIDERS: dict[str, Any] = {}
"""Groups that are no tuple of cases: an object with count(dtypes, cases) and outcomes(backend, dtypes,
device, cases), cases being patterns of names."""

GROUPS: tuple[str, ...] = (*_CASES, *PROVIDERS)


def cases_of(group: str) -> tuple[Case, ...]:
    """The cases of a group, in order."""
    return _CASES.get(group, ())
