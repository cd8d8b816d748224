"""The suite as tests: pytest --pyargs polyad_conformance, one for each backend and case; -k takes words of its name.

POLYAD_CONFORMANCE_BACKEND  names, or theirs.module:Adapter, with commas; without it all that are installed
POLYAD_CONFORMANCE_DEVICE   cpu or gpu
"""

import glob
import os
from collections.abc import Iterator

import pytest

from polyad.backends import backends
from polyad.cli.adapters import register
from polyad.cli.conformance import enable_float64_on_jax

from .report.text import failure
from .runner import DTYPES, GROUPS, listed, run


def _backends() -> Iterator[str]:
    enable_float64_on_jax()
    given = os.environ.get("POLYAD_CONFORMANCE_BACKEND", "")
    for name in given.split(",") if given else [info.name for info in backends() if info.installed]:
        yield register(name) if ":" in name else name


@pytest.mark.parametrize(
    ("group", "case"),
    [pytest.param(group, case.name, id=f"{group}: {case.name}") for group in GROUPS for case in listed(group)],
)
@pytest.mark.parametrize("backend", tuple(_backends()))
def test_the_case_is_ok_or_a_documented_gap(backend: str, group: str, case: str) -> None:
    device = os.environ.get("POLYAD_CONFORMANCE_DEVICE", "cpu")
    outcomes = list(run([backend], [group], DTYPES, device, cases=[glob.escape(case)]))
    failed = [failure(outcome) for outcome in outcomes if outcome.failed]
    assert not failed, "\n".join(failed)
    if all(outcome.cell == "skipped" for outcome in outcomes):
        pytest.skip("; ".join(dict.fromkeys(outcome.reason for outcome in outcomes)))
