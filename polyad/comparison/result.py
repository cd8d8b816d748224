"""What `compare` returns."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from polyad.comparison.measurement import Timing
from polyad.comparison.stop import Line
from polyad.errors import DisagreementError

__all__ = ["Comparison", "Row"]


@dataclass(frozen=True)
class Row:
    """One backend.

    status       "ok", "differs" or "left out"
    reason       why it differs or was left out; empty where it is ok
    line         of the user's code, which stopped it
    value        of f
    differences  relative, against the reference, by name: "value", and each leaf of the gradient
    leaf, difference  the worst of them
    checks       the gradient of each leaf against finite differences; None where they see nothing
    check_leaf, check  the worst of them
    eager, compiled   seconds for value and gradient; compiled where the backend compiles
    memory, compiled_memory  bytes by which the process grew in that, at its highest
    notes        warnings, and why nothing was compiled
    """

    backend: str
    version: str | None
    status: str
    reason: str = ""
    line: Line | None = None
    value: float | None = None
    leaf: str = ""
    difference: float | None = None
    differences: Mapping[str, float] = field(default_factory=dict)
    check_leaf: str = ""
    check: float | None = None
    checks: Mapping[str, float | None] = field(default_factory=dict)
    eager: Timing | None = None
    compiled: Timing | None = None
    memory: int | None = None
    compiled_memory: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """One loss on several backends. str() is a plain table, rich.print draws one.

    function     the name of f
    leaves       shape of each differentiated leaf by its name
    reference    the backend that the others are compared with
    allowed      relative difference between backends that is none
    allowed_check  the same against finite differences
    """

    function: str
    leaves: Mapping[str, tuple[int, ...]]
    precision: str
    device: str
    reference: str
    allowed: float
    allowed_check: float
    rows: tuple[Row, ...]

    @property
    def ran(self) -> tuple[Row, ...]:
        """The rows of backends that were not left out."""
        return tuple(row for row in self.rows if row.status != "left out")

    @property
    def agree(self) -> bool:
        """Whether at least one backend ran, and all that did agree with each other and finite differences."""
        return bool(self.ran) and all(row.status == "ok" for row in self.ran)

    def raise_if_different(self) -> None:
        """DisagreementError that names the worst leaf, unless they agree."""
        if not self.agree:
            raise DisagreementError(f"compare: {self.verdict}")

    @property
    def verdict(self) -> str:
        """One sentence."""
        from polyad.comparison.table import verdict

        return verdict(self)

    def as_dict(self) -> dict[str, Any]:
        """All of it, of what JSON has: numbers that are not finite are strings."""
        return _plain({"format": 1, "agree": self.agree, "verdict": self.verdict, **asdict(self)})

    def to_json(self, path: str | Path) -> None:
        """Write `as_dict()` to this file."""
        Path(path).write_text(json.dumps(self.as_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")

    def save_picture(self, path: str | Path) -> None:
        """Agreement and time as a picture: PNG, SVG or PDF, by the end of the name.

        raises  ImportError without matplotlib; ArgumentError for another end
        """
        from polyad.comparison.picture import save

        save(self, path)

    def __str__(self) -> str:
        from polyad.comparison.table import plain

        return plain(self)

    __repr__ = __str__

    def __rich__(self) -> Any:
        from polyad.comparison.table import drawn

        return drawn(self)


def _plain(x: Any) -> Any:
    if isinstance(x, Mapping):
        return {key: _plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [_plain(value) for value in x]
    if isinstance(x, float) and (x != x or x in (float("inf"), float("-inf"))):
        return str(x)
    return x
