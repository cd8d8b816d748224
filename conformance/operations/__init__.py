"""Every differentiable function of the array API, as data."""

from .arrays import ARRAYS
from .functions import FUNCTIONS
from .matrices import MATRICES
from .operation import Operation
from .standard import OUT_OF_SCOPE

OPERATIONS: tuple[Operation, ...] = (*FUNCTIONS, *ARRAYS, *MATRICES)

__all__ = ["OPERATIONS", "OUT_OF_SCOPE", "Operation"]
