"""Stand-ins for libraries that cannot run here: `with installed("14.2.0") as cupy:` is CuPy over NumPy, on no GPU.

It tests what polyad asks of CuPy, not CuPy: an array is no ndarray and becomes none
unasked, a function takes arrays of CuPy and numbers alone, and there are the names and
parameters of that version and no others (cupy-*.txt, read off the wheels).

array.py      the array, and which operations it leaves to others
functions.py  the functions, with what CuPy refuses and NumPy does not
library.py    the modules
"""

from tests.stand_in.library import VERSIONS, installed

__all__ = ["VERSIONS", "installed"]
