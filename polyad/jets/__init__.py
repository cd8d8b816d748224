"""Forward propagation, written once over the array API.

A jet is an array that carries its value and the derivative of that value in k
directions. Every function of the array API has a rule that says what becomes
of both, written in the namespace of the parts, so that the parts may be arrays
of any backend, and jets again.

jet.py           the array object and the protocols it speaks
rule.py          how a rule finds the innermost jets among its arguments
elementwise.py   functions of numbers: the table of partial derivatives
shapes.py        functions that only move entries: linear, the same for tangents
products.py      bilinear functions: the product rule
reductions.py    many entries to one
matrices.py      linear algebra
numpy_names.py   how NumPy calls reach the rules
numpy_functions.py  NumPy's own spelling of all this
namespace.py     the array-API namespace of jets
"""

from polyad.compositions import COMPOSITIONS, MATRIX_COMPOSITIONS
from polyad.jets import elementwise, matrices, products, reductions, shapes  # noqa: F401  (these fill the table of rules)
from polyad.jets.jet import Jet
from polyad.jets.push import pushforwards
from polyad.jets.rule import register

for _name, _composition in COMPOSITIONS.items():
    register(_name)(lambda level, *args, _f=_composition, **kwargs: _f(*args, **kwargs))
for _name, _composition in MATRIX_COMPOSITIONS.items():
    register(f"linalg.{_name}")(lambda level, *args, _f=_composition, **kwargs: _f(*args, **kwargs))

from polyad.jets import numpy_functions  # noqa: E402, F401  (and this the table of NumPy's names, once the rules are there)

__all__ = ["Jet", "pushforwards"]
