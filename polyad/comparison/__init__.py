"""compare: one loss on every backend; do they agree, and how long does each take?

arguments.py    which leaves move, and how all of them get onto a backend
stop.py         the line of the user's code that stopped a backend
agreement.py    relative differences of values and gradients
slopes.py       central differences of f along random directions
measurement.py  time and memory of a call
trial.py        one loss on one backend
result.py       Row, Comparison
table.py        the comparison as text
picture.py      the comparison as a picture
compare.py      all of it
"""

from polyad.comparison.compare import compare
from polyad.comparison.result import Comparison, Row

__all__ = ["Comparison", "Row", "compare"]
