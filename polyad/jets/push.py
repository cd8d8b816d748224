"""One pushforward: wrap the arguments, run f, unwrap what it returns."""

import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from polyad.arrays import single_owner, xp
from polyad.backends import running_jets
from polyad.errors import ArgumentError, DetachError
from polyad.jets.first_order import FIRST_ORDER
from polyad.jets.jet import Jet
from polyad.jets.kind import Level
from polyad.jets.rule import primal, tangent
from polyad.jets.trail import UNSEEN, Trail

__all__ = ["directions", "evaluated", "pushforwards", "zero_tangent"]

HERE = Path(__file__).parents[1]
"""The folder of polyad: what stands elsewhere was written by the caller, or by a framework."""


def pushforwards(
    f: Callable[..., Any], xs: Sequence[Any], dxs: Sequence[Any], has_aux: bool = False, trail: Trail = UNSEEN
) -> Any:
    """f(*xs) and its derivative in k directions at once.

    xs       arrays of any backend; f(*xs) is a tuple of arrays
    dxs      for each x its tangents, shape (k, *x.shape), or None for zero; an axis
             along which they do not vary, as the batch, may have length 1: less work
    trail    notes what f did with its arguments
    returns  (ys, dys) or (ys, dys, aux): dys of shape (k, *y.shape)
    """
    k = directions(dxs)
    level = Level(FIRST_ORDER, directions=k, trail=trail)
    jets = [x if dx is None else Jet(level, x, dx) for x, dx in zip(xs, dxs, strict=True)]
    ys, aux = evaluated(level, f, jets, has_aux)
    dys = tuple(zero_tangent(k, y) if (dy := tangent(level, y)) is None else dy for y in ys)
    rest = (tuple(primal(level, a) for a in aux),) if has_aux else ()
    return (tuple(primal(level, y) for y in ys), dys, *rest)


def directions(dxs: Sequence[Any]) -> int:
    """The number k of directions. ArgumentError where no argument moves."""
    k: int | None = next((dx.shape[0] for dx in dxs if dx is not None), None)
    if k is None:
        raise ArgumentError("jets need a direction: all of dxs are None. Give zeros of shape (1, *x.shape) to one x")
    return k


def evaluated(level: Level, f: Callable[..., Any], jets: Sequence[Any], has_aux: bool) -> tuple[Any, Any]:
    """(ys, aux) of f on jets; aux is empty without has_aux."""
    try:
        backend = single_owner(jets)
        if backend is not None:
            level.host = backend.host
            framework = backend.over or backend
            if framework.records():
                level.records = framework.records
        with running_jets(level, backend):
            out = f(*jets)
    except ValueError as error:
        if isinstance(error.__cause__, DetachError):  # out[i] = x: NumPy hides our words behind its own
            raise error.__cause__ from None
        raise
    except TypeError as error:
        if isinstance(error, DetachError) or "polyad.jets.jet.Jet" not in str(error):
            raise
        raise DetachError(_refused(error)) from error
    return out if has_aux else (out, ())


def _refused(error: TypeError) -> str:
    """What to type where a framework takes no arrays but its own, as JAX and CuPy do."""
    places = traceback.extract_tb(error.__traceback__)
    lines = [p.line for p in places if "site-packages" not in p.filename and HERE not in Path(p.filename).parents]
    words = str(error).splitlines()[0]
    return (
        f"a function in it takes arrays of its framework alone, as all of jnp and cupy do. It met one that polyad's "
        f"jets differentiate in {(lines or ['f'])[-1]!r} ({words}). Type the function of polyad.xp, which takes both: "
        f"xp.tanh(x) for jnp.tanh(x) or cupy.tanh(x), xp.linalg.solve(a, b) for jnp.linalg.solve(a, b)"
    )


def zero_tangent(k: int, y: Any) -> Any:
    """Zeros of shape (k, *y.shape), of the dtype and on the device of y."""
    zero = xp.zeros_like(y)
    return xp.broadcast_to(zero[None, ...], (k, *zero.shape))
