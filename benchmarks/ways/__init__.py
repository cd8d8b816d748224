"""The same derivatives by each framework alone: every way that is known, by hand and as people usually write it.

way.py       what a way is, and how a module lists its ways
autograd.py  jax.py  numpy.py  torch.py
"""

from importlib import import_module
from typing import Any

from ..problem import Problem
from .way import Absent, Way

__all__ = ["Absent", "Way", "framework"]


def framework(problem: Problem, compiled: bool) -> Any:
    """The ways of this problem's backend: an object with `forward`, `polyad`, `ways`, `peak`."""
    module = import_module(f"{__package__}.{problem.backend}")
    return module.Framework(problem, compiled)
