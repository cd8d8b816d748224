"""gradient and value_and_gradient."""

from collections.abc import Callable, Sequence
from typing import Any

from polyad.arrays import xp
from polyad.backends.base import Arrays, Backend, contract
from polyad.errors import NotScalarError
from polyad.operators.call import Call
from polyad.operators.curry import curried
from polyad.operators.passes import Passes, evaluating, nested

__all__ = ["gradient", "value_and_gradient"]


@curried
def gradient(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """Gradient of the scalar function f.

    args     pytrees of floating arrays, any shapes; without any, a function
             of them is returned
    argnums  which of them to differentiate: a position or a tuple of positions
    has_aux  f returns (value, aux), and the result is (gradient, aux)
    backend  None: that of the arrays
    mode     "auto", "forward", "reverse" or "finite_difference"
    returns  the tree of args[argnums], leaf by leaf of its shape; unit [f]/[x]
    raises   NotScalarError, LeafError, BackendError, ModeError
    source   Griewank & Walther (2008), ch. 3
    """
    call, _, grads, aux = _gradient("gradient", f, args, argnums, has_aux, backend, mode, _kwargs)
    return (call.inputs(grads), call.aux(aux)) if has_aux else call.inputs(grads)


@curried
def value_and_gradient(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    backend: str | Backend | None = None,
    mode: str = "auto",
    _kwargs: dict[str, Any] | None = None,
) -> Any:
    """f(*args) and its gradient from one evaluation; otherwise as `gradient`.

    returns  (value, gradient), with has_aux ((value, aux), gradient)
    """
    f, write = evaluating(f, has_aux)
    keep_aux = has_aux or write is not None
    call, ys, grads, aux = _gradient("value_and_gradient", f, args, argnums, keep_aux, backend, mode, _kwargs)
    value = call.outputs(ys)
    if write is not None:
        write(call.aux(aux))
    return ((value, call.aux(aux)) if has_aux else value), call.inputs(grads)


def _gradient(
    operator: str, f: Any, args: Any, argnums: Any, has_aux: bool, backend: Any, mode: str, kwargs: Any
) -> tuple[Call, Arrays, Arrays, Arrays]:
    """(the call, its ys, the gradients of its xs, the arrays of aux)."""
    call = Call(operator, f, args, argnums, backend, has_aux, kwargs)
    call.check_outputs = _one_number

    def sweep(passes: Passes, *xs: Any) -> tuple[Arrays, ...]:
        plan = passes.choose_for_one_row(mode)
        if plan.mode == "reverse" or not xs:
            ys, pull, aux = passes.pullback(xs)
            return ys, passes.backend.last_pull(pull, (xp.ones_like(ys[0]),)), aux
        ys, by_input, aux = passes.columns(xs, plan.mode)
        return ys, contract(xs, by_input, (xp.ones_like(ys[0]),)), aux

    ys, grads, aux = nested(call, sweep)
    return call, ys, grads, aux


def _one_number(call: Call, xs: Arrays, ys: Arrays) -> None:
    if len(ys) == 1 and not ys[0].shape:
        return
    if len(ys) == 1:
        shape, name = tuple(ys[0].shape), call.name(call.argnums[0], 0) if call.xs else "x"
        jacobian = f", which has shape {(*shape, *call.xs[0].shape)}" if len(call.xs) == 1 else ""
        raise NotScalarError(
            f"{call.operator}: f returned shape {shape}; a gradient needs one number. "
            f"Sum it, or ask for jacobian(f, {name.partition('[')[0]}){jacobian}."
        )
    if not ys:
        raise NotScalarError(f"{call.operator}: f returned no array; a gradient needs one number. Does f return it?")
    raise NotScalarError(
        f"{call.operator}: f returned {len(ys)} arrays of shapes {', '.join(str(tuple(y.shape)) for y in ys)}; a "
        f"gradient needs one number. Return their sum, or the rest as aux with has_aux=True, or ask for jacobian."
    )
