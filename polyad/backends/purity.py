"""Whether a function gives the same values each time it is evaluated."""

from collections.abc import Sequence
from typing import Any

from polyad.arrays import dtype_name, xp
from polyad.errors import ImpureFunctionError, UnsupportedError

__all__ = ["refuse_changed"]

# Sums may run in another order the second time; whatever else differs, a random mask
# or a running mean, differs by more. Square roots of the relative precision.
SAME = {"float64": 1.5e-8, "complex128": 1.5e-8, "float32": 3.5e-4, "complex64": 3.5e-4}


def refuse_changed(backend: Any, again: Sequence[Any], before: Sequence[Any], cure: str = "") -> None:
    """Raise unless f, evaluated again, gave what it had given before.

    cure    what to type, besides passing the numbers in
    raises  ImpureFunctionError: f draws random numbers or reads what has changed
    """
    for new, old in zip(again, before, strict=True):
        if 0 in tuple(old.shape):
            continue
        with backend.untracked():
            new, old = _constant(backend, new), _constant(backend, old)
            changed = xp.max(xp.abs(new - old)) > SAME.get(dtype_name(old.dtype), 0.1) * xp.max(xp.abs(old))
        if bool(changed) if backend.concrete(changed) else backend.draws():
            raise ImpureFunctionError(
                "a function that is differentiated gave other values when it was evaluated again: it draws random "
                "numbers, or reads something that has changed since. Draw the numbers outside and pass them in"
                f"{cure and ', or '}{cure}"
            )


def _constant(backend: Any, y: Any) -> Any:
    try:
        return backend.stop_gradient(y)
    except UnsupportedError:  # nothing is derived of it in any case
        return y
