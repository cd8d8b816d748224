"""Everything that a run found, for programs: one outcome a line."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from .report import Report

__all__ = ["SCHEMA", "as_json", "kept"]

SCHEMA = 1
"""Raised where a field changes its meaning or goes."""


def as_json(report: Report) -> str:
    """The report; fields of an outcome that are empty are left out, and JSON has no nan: it is the string "nan"."""
    facts = {"schema": SCHEMA, "conforms": report.conforms, **asdict(report)}
    del facts["outcomes"]
    head = json.dumps(facts, indent=2, allow_nan=False).removesuffix("\n}")
    lines = ",\n".join(f"    {json.dumps(kept(o.json()), allow_nan=False)}" for o in report.outcomes)
    return f'{head},\n  "outcomes": [\n{lines}\n  ]\n}}\n'


def kept(outcome: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something, with numbers that JSON knows."""
    return {key: _finite(value) for key, value in outcome.items() if value not in ("", None, ())}


def _finite(x: Any) -> Any:
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x
