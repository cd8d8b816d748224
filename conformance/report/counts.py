"""How many cells of which kind, and cells that share a reason, in the order of the outcomes."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

from ..outcome import FAILURES, Outcome

__all__ = ["KINDS", "WORDS", "backends_of", "counted", "in_words", "of_kind", "place", "together", "worst_first"]

Key = TypeVar("Key", bound=Hashable)

WORDS = {
    "wrong": "wrong",
    "silent zero": "zero",
    "raises": "raises",
    "unexpected pass": "stale",
    "gap": "gap",
    "ok": "ok",
    "skipped": "skip",
}
"""One short word for each kind of cell, the worst first."""

KINDS = tuple(WORDS)


def backends_of(outcomes: Iterable[Outcome]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(outcome.backend for outcome in outcomes))


def of_kind(outcomes: Iterable[Outcome], *kinds: str) -> tuple[Outcome, ...]:
    return tuple(outcome for outcome in outcomes if outcome.cell in kinds)


def together(outcomes: Iterable[Outcome], key: Callable[[Outcome], Key]) -> dict[Key, list[Outcome]]:
    """The outcomes by this key."""
    found: dict[Key, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(key(outcome), []).append(outcome)
    return found


def counted(outcomes: Iterable[Outcome]) -> Counter[str]:
    return Counter(outcome.cell for outcome in outcomes)


def worst_first(counts: Counter[str]) -> list[tuple[str, int]]:
    """(kind, how many) of each kind that there is."""
    return [(kind, counts[kind]) for kind in KINDS if counts[kind]]


def in_words(counts: Counter[str]) -> str:
    """ "3 WRONG, 2 gap, 40 ok", failures in capitals; "-" for none at all."""
    words = {kind: word.upper() if kind in FAILURES else word for kind, word in WORDS.items()}
    return ", ".join(f"{n} {words[kind]}" for kind, n in worst_first(counts)) or "-"


def place(outcome: Outcome) -> str:
    """Where in the matrix: group, case, backend, dtype and mode."""
    device = "" if outcome.device == "cpu" else outcome.device
    parts = (outcome.group, outcome.case, outcome.mode, outcome.backend, outcome.dtype, device)
    return ", ".join(part for part in parts if part)
