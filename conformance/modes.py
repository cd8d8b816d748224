"""How passes are put inside each other: forward, reverse, RoR, FoR, RoF, FoF, RRR, vmap, jit.

R is a reverse pass, F a forward pass, and the outer one is named first. A mode
makes of a function f of arrays, directions v, a cotangent c and a backend a
function of the same arrays, in polyad's operators alone. What it gives is a
tuple of arrays. With y = f(x) and s = <c, y>:

forward  y, Dy[v]            RoF, FoR, RoR  the gradient of Ds[v]
reverse  y, the gradient of s  FoF            D²y[v, v]
vmap     as reverse, of a batch    RRR            the gradient of D²s[v, v]
jit      as reverse, compiled
"""

from collections.abc import Callable, Sequence
from typing import Any

from polyad import jvp, vjp
from polyad.backends.base import Backend

Array = Any
Arrays = tuple[Array, ...]
Function = Callable[..., Any]
Mode = Callable[[Function, Arrays, Array, Backend], Callable[..., Arrays]]

__all__ = ["MODES", "Mode", "unavailable"]


def forward(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return lambda *xs: jvp(f, xs, v, backend=backend)


def reverse(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    def value_and_gradient(*xs: Array) -> Arrays:
        y, pull = vjp(f, *xs, backend=backend)
        return (y, *pull(c))

    return value_and_gradient


def _along(f: Function, v: Arrays, backend: Backend) -> Function:
    """The derivative of f along v, by a forward pass."""
    return lambda *xs: jvp(f, xs, v, backend=backend)[1]


def _gradient(f: Function, c: Any, backend: Backend) -> Function:
    """The gradient of <c, f>, by a reverse pass."""
    return lambda *xs: vjp(f, *xs, backend=backend)[1](c)


def fof(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    second = _along(_along(f, v, backend), v, backend)
    return lambda *xs: (second(*xs),)


def rof(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return _gradient(_along(f, v, backend), c, backend)


def for_(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return _along(_gradient(f, c, backend), v, backend)


def ror(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return _gradient(_gradient(f, c, backend), v, backend)


def rrr(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return _gradient(ror(f, v, c, backend), v, backend)


def vmap(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return backend.batch(reverse(f, v, c, backend))


def jit(f: Function, v: Arrays, c: Array, backend: Backend) -> Function:
    return backend.compile(reverse(f, v, c, backend))


MODES: dict[str, Mode] = {
    "forward": forward,
    "reverse": reverse,
    "RoR": ror,
    "FoR": for_,
    "RoF": rof,
    "FoF": fof,
    "RRR": rrr,
    "vmap": vmap,
    "jit": jit,
}


def unavailable(mode: str, backend: Backend) -> str:
    """Why the backend does not have this mode; empty where it does."""
    if mode == "jit" and not backend.compiles:
        return f"the adapter of {backend.name} has no compiler"
    if mode == "jit" and backend.eager:
        return f"{backend.name} takes seconds to compile a function"
    return ""


def leaf_names(mode: str, n: int) -> Sequence[str]:
    """Names of what the mode gives for n arguments."""
    slopes = [f"d/dx{i}" for i in range(n)]
    if mode in ("reverse", "vmap", "jit"):
        return ["y", *slopes]
    if mode == "forward":
        return ["y", "Dy[v]"]
    if mode == "FoF":
        return ["D²y[v, v]"]
    return [f"{slope} {'D²s[v, v]' if mode == 'RRR' else 'Ds[v]'}" for slope in slopes]
