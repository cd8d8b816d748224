"""Forward propagation, written once over the array API.

A jet is an array that carries its value and the derivative of that value in k
directions. Every function of the array API has a rule that says what becomes
of both, written in the namespace of the parts, so that the parts may be arrays
of any backend, and jets again.

jet.py              the array object and the protocols it speaks
rule.py             how a rule finds the innermost jets among its arguments
elementwise.py      functions of numbers: the table of partial derivatives
shapes.py           functions that only move entries: linear, the same for tangents
products.py         bilinear functions: the product rule
reductions.py       many entries to one
matrices.py         linear algebra
numpy_names.py      how a call of NumPy reaches a rule
numpy_functions.py  NumPy's own spelling of all this
namespace.py        the array-API namespace of jets
"""

# These fill the tables, the last one that of NumPy's names once the rules are there.
from polyad.jets import elementwise, matrices, products, reductions, shapes  # noqa: F401, I001
from polyad.jets import numpy_functions  # noqa: F401
from polyad.jets.jet import Jet
from polyad.jets.push import pushforwards

__all__ = ["Jet", "pushforwards"]
