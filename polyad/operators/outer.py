"""Which pass runs around an inner derivative, where the caller leaves it open."""

from polyad.backends.base import Arrays, Backend, Function, with_aux
from polyad.operators.call import Call
from polyad.tuned import choice, seen

__all__ = ["compiles", "forward_is_right", "outer_mode"]

# Hessians of sum(tanh(tanh(x @ a) @ b)^2), one CPU thread, 2026-11. torch: with 30
# entries double backward takes 1.8 ms, forward over reverse 4.3 ms; with 200
# entries 44 ms and 21 ms. JAX, compiled: forward over reverse 0.29 ms against
# 0.37 ms for 30 entries, 5.7 ms against 7.0 ms for 200. autograd, which loops over
# directions: 18 ms against 5.6 ms for 30.
MANY_COLUMNS = 64


def outer_mode(call: Call, columns: int, xs: Arrays, f: Function | None = None) -> str:
    """The mode of a derivative in so many directions of a reverse-mode derivative of f at xs, or of that of the call.

    As `tune` has measured it for the call; else "forward" where that is faster and
    right, else "auto". One direction alone, a product of the Hessian with a vector, is
    columns=1: on compiled JAX forward over reverse is up to 1.4 times faster in a scan,
    with 2/3 of the memory, and equal without one; on torch it takes 2 to 3 times as long.
    """
    backend, tuned = call.backend, choice(call)
    if "forward" not in backend.modes or "reverse" not in backend.modes:
        return "auto"
    seen(call, "auto", 0, 0)
    if tuned is not None and tuned.mode == "reverse":
        return "reverse"
    pays = compiles(backend) or (columns >= MANY_COLUMNS and _pushes_together(backend))
    pays = pays or (tuned is not None and tuned.mode == "forward")
    return "forward" if pays and forward_is_right(backend, f or call.flat, xs, call.has_aux) else "auto"


def forward_is_right(backend: Backend, f: Function, xs: Arrays, has_aux: bool) -> bool | None:
    """Whether a forward pass of f, differentiated again, is right; may record f once to see it.

    None inside of a transformation of the framework, where what f records cannot be looked at.
    """
    if type(backend).forward_is_right is Backend.forward_is_right or not xs:
        return True
    if backend.scope():
        return None
    return backend.forward_is_right(with_aux(backend.pullback, has_aux)(f, xs)[1])


def compiles(backend: Backend) -> bool:
    """Whether f is traced as a whole: passes then fuse, and the calls inside of one cost nothing."""
    return type(backend).output_shapes is not Backend.output_shapes


def _pushes_together(backend: Backend) -> bool:
    """Whether many directions take one sweep of the framework, not a loop."""
    return type(backend).pushforwards is not Backend.pushforwards
