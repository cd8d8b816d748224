"""The suite as tests: pytest --pyargs polyad_conformance, one test for each backend and group.

POLYAD_CONFORMANCE_BACKEND  names, or theirs.module:Adapter, with commas; without it all that are installed
POLYAD_CONFORMANCE_DEVICE   cpu or gpu
"""

import os
from collections.abc import Iterator

import pytest

from polyad.backends import backends
from polyad.cli.adapters import register
from polyad.cli.conformance import enable_float64_on_jax

from .report.text import failure
from .runner import DTYPES, GROUPS, run


def _backends() -> Iterator[str]:
    enable_float64_on_jax()
    given = os.environ.get("POLYAD_CONFORMANCE_BACKEND", "")
    for name in given.split(",") if given else [info.name for info in backends() if info.installed]:
        yield register(name) if ":" in name else name


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("backend", tuple(_backends()))
def test_every_cell_is_ok_or_a_documented_gap(backend: str, group: str) -> None:
    outcomes = list(run([backend], [group], DTYPES, os.environ.get("POLYAD_CONFORMANCE_DEVICE", "cpu")))
    failed = [failure(outcome) for outcome in outcomes if outcome.failed]
    assert not failed, "\n".join(failed)
    if all(outcome.cell == "skipped" for outcome in outcomes):
        pytest.skip("; ".join(dict.fromkeys(outcome.reason for outcome in outcomes)))
