"""Forward propagation, written once over the array API.

A jet is an array that carries its value and derivative parts of it: the
derivative in k directions; these and the Laplacian along them; or a Taylor
series in one variable. Every function of the array API has a rule that says
what becomes of the parts, written in their namespace, so that the parts may be
arrays of any backend, and jets again.

jet.py              the array object and the protocols it speaks
kind.py             what jets of one kind carry; the level of a pushforward
rule.py             how a rule finds the innermost jets among its arguments
trail.py            what the jets of a pass went through
first_order.py      the algebra of the kinds: the derivative in k directions,
laplacian_rules.py  the same and the sum of second derivatives,
taylor.py           series
push.py             one pass of each kind through a function:
laplacians.py       pushforwards, laplacians,
series.py           series
elementwise.py      functions of numbers: the table of partial derivatives
shapes.py           functions that only move entries: linear, the same for all parts
products.py         bilinear functions: the product rule
reductions.py       many entries to one
matrices.py         linear algebra
namespace.py        the array-API namespace of jets
numpy_names.py      how a call of NumPy reaches a rule
numpy_functions.py  NumPy's own spelling of all this
torch_names.py      torch's own spelling
"""

# These fill the tables, the last one that of NumPy's names once the rules are there.
from polyad.jets import elementwise, matrices, products, reductions, shapes  # noqa: F401, I001
from polyad.jets import numpy_functions  # noqa: F401
from polyad.jets.jet import Jet
from polyad.jets.laplacians import laplacians
from polyad.jets.push import pushforwards
from polyad.jets.series import series
from polyad.jets.trail import Trail

__all__ = ["Jet", "Trail", "laplacians", "pushforwards", "series"]
