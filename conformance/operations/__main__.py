"""`python -m polyad_conformance.operations [backend ...] > docs/coverage.md`: runs the matrix and writes the table."""

import sys

from rich.console import Console
from rich.progress import track

from polyad.backends import backends

from ..modes import MODES
from . import OPERATIONS
from .coverage import table
from .matrix import operations_matrix

names = sys.argv[1:] or [info.name for info in backends() if info.installed]
cells = operations_matrix(names)
total = len(OPERATIONS) * len(names) * len(MODES)
print(table(track(cells, "operations", total, console=Console(stderr=True)), names), end="")
