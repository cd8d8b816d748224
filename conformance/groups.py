"""The groups of cases by name."""

from typing import Any

from . import arguments, examples, fields, laws, nested, networks, points, refusals
from .case import Case
from .operations.group import Group

__all__ = ["GROUPS", "PROVIDERS", "cases_of", "listed"]

_CASES: dict[str, tuple[Case, ...]] = {
    "adapter laws": tuple(laws.CASES),
    "first order": (*arguments.CASES, *fields.CASES, *points.CASES),
    "nested": tuple(nested.CASES),
    "documented examples": examples.CASES,
    "layers and state": tuple(networks.CASES),
    "errors": tuple(refusals.CASES),
}

PROVIDERS: dict[str, Any] = {"operations": Group()}
"""Groups that are no tuple of cases: an object with cases, count(dtypes, cases) and outcomes(adapter, dtypes,
device, cases, share), cases being patterns of names."""

GROUPS: tuple[str, ...] = (*_CASES, *PROVIDERS)


def listed(group: str) -> tuple[Any, ...]:
    """What is in a group, each with name, source and tags."""
    return cases_of(group) or tuple(PROVIDERS[group].cases)


def cases_of(group: str) -> tuple[Case, ...]:
    """The cases of a group, in order."""
    return _CASES.get(group, ())
