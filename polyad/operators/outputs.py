"""How many outputs a function had when it last ran.

Of a framework that runs a function only to know, this is what a plan begins with: where the
function has other outputs meanwhile, the pass that was chosen is a slower one and as right.
"""

from types import FunctionType
from typing import Any
from weakref import WeakKeyDictionary

__all__ = ["remember", "remembered"]

_outputs: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()


def remembered(f: Any, inputs: int) -> int | None:
    """The number of outputs of f with so many inputs; None where it has not run."""
    try:
        return _outputs[_program(f)].get(inputs)
    except (KeyError, TypeError):  # a model may have no hash
        return None


def remember(f: Any, inputs: int, outputs: int) -> None:
    """Keep this number for the program of f, as long as that lives."""
    if remembered(f, inputs) != outputs:
        try:
            _outputs.setdefault(_program(f), {})[inputs] = outputs
        except TypeError:
            return


def _program(f: Any) -> Any:
    """What stays the same when a step of training makes f again."""
    return f.__code__ if isinstance(f, FunctionType) else getattr(f, "model", type(f))
