"""All rows of a run, and what they were measured on."""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .measure import geometric_mean
from .row import Row

__all__ = ["Report", "Summary", "processor"]

SCHEMA = 2
"""Raised where a field changes its meaning or goes."""

PACKAGES = ("polyad", "numpy", "autograd", "jax", "jaxlib", "torch", "deepxde", "folx")


@dataclass(frozen=True)
class Summary:
    """Of rows: how many have a competitor, and the shares of them.

    within_5, within_15  of rows whose ratio polyad / best is at most 1.05 and 1.15, by its median
    surely_5, surely_not_5  of rows whose whole interval is at most 1.05, and above it
    ahead                geometric mean of usual / polyad over `usual` rows
    """

    rows: int
    within_5: float
    within_15: float
    surely_5: float
    surely_not_5: float
    usual: int
    ahead: float


@dataclass(frozen=True)
class Report:
    """What `polyad bench` found.

    versions  of polyad and of all that was compared; None where it is not installed
    date      of the end, UTC, ISO 8601
    seconds   of the whole run
    """

    rows: tuple[Row, ...]
    command: str
    date: str
    seconds: float
    python: str
    platform: str
    processor: str
    cores: int
    versions: Mapping[str, str | None]

    @classmethod
    def of(cls, rows: Iterable[Row], *, command: str = "polyad bench", seconds: float = 0.0) -> "Report":
        """The report of these rows, measured here and now."""
        return cls(
            rows=tuple(rows),
            command=command,
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            seconds=seconds,
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            processor=processor(),
            cores=os.cpu_count() or 1,
            versions={name: _version(name) for name in PACKAGES},
        )

    def summary(self, formulas: bool = True) -> Summary:
        """Of all rows that were measured; `formulas`: those for one network count as competitors too."""
        ratios = [row.by_best if formulas else row.by_general for row in self.rows]
        ratios = [ratio for ratio in ratios if ratio.rounds]
        ahead = [row.by_usual.median for row in self.rows if row.by_usual.rounds]
        return Summary(
            len(ratios),
            _share([ratio.median <= 1.05 for ratio in ratios]),
            _share([ratio.median <= 1.15 for ratio in ratios]),
            _share([ratio.high <= 1.05 for ratio in ratios]),
            _share([ratio.low > 1.05 for ratio in ratios]),
            len(ahead),
            geometric_mean(ahead),
        )

    def instead(self) -> list[tuple[str, str, int, float]]:
        """(backend, a way that people usually write, its rows, geometric mean of its time / polyad's in them)."""
        found: dict[tuple[str, str], list[float]] = {}
        for row in self.rows:
            for way in row.candidates if row.polyad is not None else ():
                if way.tag in ("usual", "library"):
                    found.setdefault((row.backend, way.name), []).append(way.time.median / row.polyad.time.median)
        return [(*key, len(times), geometric_mean(times)) for key, times in found.items()]

    @property
    def problems(self) -> tuple[str, ...]:
        """Who disagreed or raised, in which row."""
        return tuple(f"{row.where}: {row.group}: {row.name}: {text}" for row in self.rows for text in row.problems)

    @property
    def absent(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(text for row in self.rows for text in row.absent))

    def write(self, file: Path) -> None:
        """As JSON, one row a line; JSON has no nan, it is the string "nan"."""
        facts = {"schema": SCHEMA, **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)}}
        rows = facts.pop("rows")
        head = json.dumps(facts, indent=2).removesuffix("\n}")
        lines = ",\n".join(f"    {json.dumps(_rounded(row.json()), allow_nan=False)}" for row in rows)
        file.write_text(f'{head},\n  "rows": [\n{lines}\n  ]\n}}\n', encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Report":
        """What `write` wrote."""
        facts = json.loads(file.read_text(encoding="utf-8"))
        if facts.pop("schema") != SCHEMA:
            raise ValueError(f"{file} was written by another version of polyad; run `polyad bench` again")
        rows = tuple(Row.of_json({key: _nan(value) for key, value in row.items()}) for row in facts.pop("rows"))
        return cls(rows=tuple(rows), **facts)


def _nan(value: Any) -> Any:
    """What `_rounded` made of nan, back."""
    if isinstance(value, dict):
        return {key: _nan(part) for key, part in value.items()}
    return math.nan if value == "nan" else value


def _rounded(value: Any) -> Any:
    """With four digits, and nan as a word, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value


def _share(true: list[bool]) -> float:
    return sum(true) / len(true) if true else math.nan


def _version(name: str) -> str | None:
    if name == "polyad":
        import polyad

        return polyad.__version__
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The model, as Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())
