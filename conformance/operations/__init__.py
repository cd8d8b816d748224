"""Every differentiable function of the array API, as data.

operation.py  what an operation is: a function and points of its domain
functions.py  functions of numbers and operators
arrays.py     moving entries, reductions, indexing
matrices.py   products and linear algebra
standard.py   the names of the standard that have no derivative, each with its reason
exact.py      the array API on numbers of sixty digits, without polyad
witness.py    derivatives by differences of those
matrix.py     a cell for each operation, mode and backend
gaps.py       what frameworks lack, and what to type instead
coverage.py   the published table
"""

from .arrays import ARRAYS
from .functions import FUNCTIONS
from .matrices import MATRICES
from .operation import Operation
from .standard import OUT_OF_SCOPE

OPERATIONS: tuple[Operation, ...] = (*FUNCTIONS, *ARRAYS, *MATRICES)

__all__ = ["OPERATIONS", "OUT_OF_SCOPE", "Operation"]
