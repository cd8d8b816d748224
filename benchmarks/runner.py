"""Processes that measure, one after the other: one group on one backend each, so that none inherits much memory.

Rows come as they are measured. A process that dies makes a problem of the row it was at, and another one goes on.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from itertools import groupby

from .row import Row
from .surroundings import ENVIRONMENT
from .workload import WORKLOADS, Workload

__all__ = ["run"]


def run(workloads: Sequence[Workload], *, rounds: int = 41, quick: bool = False) -> Iterator[Row]:
    """The rows of these workloads, which are some of WORKLOADS, group by group."""
    numbers = [i for i, workload in enumerate(WORKLOADS) if _key(workload) in {_key(chosen) for chosen in workloads}]
    numbers.sort(key=lambda i: (WORKLOADS[i].backend, WORKLOADS[i].compiled))
    for _, same in groupby(numbers, lambda i: (WORKLOADS[i].backend, WORKLOADS[i].compiled, WORKLOADS[i].group)):
        left = list(same)
        while left:
            done = 0
            for row in _process(left, rounds, quick):
                done += 1
                yield row
            left = left[done:]


def _process(numbers: Sequence[int], rounds: int, quick: bool) -> Iterator[Row]:
    command = [sys.executable, "-m", f"{__package__}.worker", "--rounds", str(rounds), *(["--quick"] if quick else [])]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            [*command, *map(str, numbers)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        ) as process:
            assert process.stdout is not None
            try:
                count = 0
                for line in process.stdout:
                    count += 1
                    yield Row.of_json(json.loads(line)[1])
            finally:
                process.terminate()
        if count < len(numbers):
            errors.seek(0)
            lines = errors.read().strip().splitlines()
            died = WORKLOADS[numbers[count]]
            yield Row(
                died.group,
                died.name,
                died.backend,
                died.compiled,
                problems=(f"the process ended with {process.returncode}: {lines[-1] if lines else ''}",),
            )


def _key(workload: Workload) -> tuple[object, ...]:
    return workload.group, workload.name, workload.backend, workload.compiled
