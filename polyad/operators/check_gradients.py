"""check_gradients: a derivative against finite differences."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from polyad import trees
from polyad.arrays import EPSILON, dtype_name, is_floating, stop_gradient, xp
from polyad.backends.base import Backend
from polyad.errors import ArgumentError, DTypeError, GradientCheckError
from polyad.operators.call import Call
from polyad.operators.jacobian import jacobian

__all__ = ["check_gradients"]


def check_gradients(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    backend: str | Backend | None = None,
    mode: str = "auto",
    rtol: float | None = None,
    order: int = 1,
) -> float:
    """Compare the Jacobian of f with central differences, entry by entry.

    argnums  None: every argument that has floating leaves only
    rtol     largest difference allowed, relative to the largest entry of the
             leaf; None: 1e-6 in float64, 2e-2 in float32
    order    2: also the Jacobian of that Jacobian, and so on
    returns  the largest relative difference that was found
    raises   GradientCheckError that names the worst leaf; a gradient too small
             for finite differences to see is an error too, not a pass
    """
    argnums = _floating_arguments(f, args, backend) if argnums is None else argnums
    argnums = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    if not argnums:
        raise DTypeError("check_gradients: no argument has floating leaves alone; make one floating, or give argnums")
    if isinstance(order, bool) or not isinstance(order, int) or order < 1:
        raise ArgumentError(f"check_gradients: order={order!r}; it is a whole number, 1 or more")
    worst = 0.0
    for _ in range(order):
        worst = max(worst, _check(f, args, argnums, backend, mode, rtol))
        derivative = jacobian(f, argnums=argnums, backend=backend, mode=mode)
        f = functools.wraps(f, updated=())(derivative)  # so that errors name the arguments of f
    return worst


def _check(f: Any, args: Any, argnums: tuple[int, ...], backend: Any, mode: str, rtol: float | None) -> float:
    options: dict[str, Any] = {"argnums": argnums, "backend": backend}
    actual = trees.leaves(jacobian(f, *args, mode=mode, **options))
    expected = trees.leaves(jacobian(f, *args, mode="finite_difference", **options))
    call = Call("check_gradients", f, args, argnums, backend)
    names = [call.name(i, j) for i in argnums for j in range(len(call.leaves[i]))]
    pairs = enumerate(zip(actual, expected, strict=True))
    worst = max((_difference(a, e, names[i % len(names)], call) for i, (a, e) in pairs), default=(0.0, ""))
    limit = rtol if rtol is not None else max((_limit(x) for x in call.xs), default=0.0)
    if not worst[0] <= limit:
        raise GradientCheckError(
            f"check_gradients: the derivative in {worst[1]} differs from finite differences by {worst[0]:.2e} of its "
            f"largest entry; {limit:.0e} is allowed. Either a rule is wrong, or f is not smooth there (a kink, a jump, "
            f"randomness, a state that changes from call to call)"
        )
    return worst[0]


def _floating_arguments(f: Any, args: Any, backend: Any) -> tuple[int, ...]:
    return tuple(
        i
        for i, arg in enumerate(args)
        if trees.leaves(arg) and all(isinstance(x, float) or is_floating(x) for x in trees.leaves(arg))
    )


def _limit(x: Any) -> float:
    return 1e-6 if dtype_name(x.dtype) == "float64" else 2e-2


def _difference(actual: Any, expected: Any, name: str, call: Call) -> tuple[float, str]:
    """(largest relative difference, name of the leaf)."""
    if 0 in tuple(actual.shape):
        return 0.0, name
    actual, expected = stop_gradient(actual), stop_gradient(expected)  # numbers alone are looked at
    gap = float(xp.max(xp.abs(actual - expected)))
    size = max(float(xp.max(xp.abs(actual))), float(xp.max(xp.abs(expected))))
    if size == 0.0:
        return 0.0, name
    ys = stop_gradient(call.evaluate(call.xs)[0])
    noise = 10 * EPSILON[dtype_name(actual.dtype)] ** (2 / 3) * max(float(xp.max(xp.abs(y))) for y in ys)
    if size < noise:
        raise GradientCheckError(
            f"check_gradients: the derivative in {name} is at most {size:.1e}, and finite differences of f see nothing "
            f"below {noise:.1e} here: the check would pass on a wrong zero. Scale the inputs so that it matters"
        )
    return gap / size, name
