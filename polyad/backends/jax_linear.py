"""Constants of JAX as a function of arguments, by a derivative and its transpose that are given.

jax.custom_vjp breaks forward mode, and jax.custom_derivatives.linear_call has
no rule for vmap and does not see tangents of what it is not linear in. Here the
derivative is a primitive with all the rules: a linear map whose transpose is
another function, whose transpose is the map again.

Source: the guide "How JAX primitives work" of JAX.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from polyad.backends.base import Arrays, Function, Push, Transpose

__all__ = ["attach"]

linear_p = Primitive("polyad_linear")
linear_p.multiple_results = True


def attach(zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
    """zs, whose derivative is push(args, dargs), whose transpose is pull(args, cotangents)."""
    forward, forward_constants = _traced(push, args, args)
    backward, backward_constants = _traced(pull, args, zs)
    # What the two capture goes in as operands: hidden in them, it would outlive its trace.
    k, constants = len(forward_constants), (*forward_constants, *backward_constants)
    n = len(constants)
    return tuple(
        attached_p.bind(
            *zs,
            *constants,
            *args,
            push=lambda *operands: forward(operands[:k], operands[n:]),
            pull=lambda *operands: backward(operands[k:n], operands[n:]),
            m=len(zs),
            n=n,
        )
    )


def _traced(f: Function, args: Arrays, directions: Arrays) -> tuple[Function, Arrays]:
    """(run, constants): run(constants, (*args, *directions)) is f(args, directions).

    Where f has no such pass, as a while loop has no reverse one, run says so
    when it is asked for.
    """
    try:
        closed = jax.make_jaxpr(f)(args, tuple(map(jnp.zeros_like, directions)))
    except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = error

        def refuse(constants: Arrays, operands: Arrays) -> Any:
            raise reason

        return refuse, ()
    return lambda constants, operands: jax.core.eval_jaxpr(closed.jaxpr, constants, *operands), tuple(closed.consts)


def _run(*operands: Any, push: Function, pull: Function, n: int) -> Any:
    return push(*operands)


def _shapes(*operands: Any, push: Function, pull: Function, n: int) -> Any:
    structs = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in operands)
    return [jax.core.ShapedArray(y.shape, y.dtype) for y in jax.eval_shape(push, *structs)]


def _jvp(primals: Any, tangents: Any, *, push: Function, pull: Function, n: int) -> Any:
    bind = functools.partial(linear_p.bind, push=push, pull=pull, n=n)
    along = [ad.instantiate_zeros(t) for t in tangents[n:]]
    dys = bind(*primals[:n], *along)
    moving = [i for i in range(n) if type(tangents[i]) is not ad.Zero]
    if moving:

        def of_moving(*some: Any) -> Any:
            given = dict(zip(moving, some, strict=True))
            return push(*(given.get(i, x) for i, x in enumerate(primals)))

        points, directions = [primals[i] for i in moving], [tangents[i] for i in moving]
        dys = list(map(jnp.add, dys, jax.jvp(of_moving, points, directions)[1]))
    return bind(*primals), dys


def _transpose(cotangents: Any, *operands: Any, push: Function, pull: Function, n: int) -> Any:
    full = [ad.instantiate_zeros(ct) for ct in cotangents]
    found = linear_p.bind(*operands[:n], *full, push=pull, pull=push, n=n)
    wanted = [ct if ad.is_undefined_primal(x) else None for x, ct in zip(operands[n:], found, strict=True)]
    return [None] * n + wanted


def _batch(operands: Any, axes: Any, *, push: Function, pull: Function, n: int) -> Any:
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    along = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands[n:], axes[n:], strict=True)]
    over = {"push": _each(push, axes[:n], size), "pull": _each(pull, axes[:n], size)}
    ys = linear_p.bind(*operands[:n], *along, **over, n=n)
    return ys, [0] * len(ys)


def _each(f: Function, axes: Any, size: int) -> Function:
    """f over a leading axis of its last operands, and over these axes of the first ones."""
    return lambda *xs: jax.vmap(f, (*axes, *(0,) * (len(xs) - len(axes))), axis_size=size)(*xs)


linear_p.def_impl(_run)
linear_p.def_abstract_eval(_shapes)
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batch
mlir.register_lowering(linear_p, mlir.lower_fun(_run, multiple_results=True))


# The constants: operands are (*zs, *constants, *args), m and n the numbers of the first two.
# Not jax.custom_jvp: partial evaluation, as in a scan that is linearized, drops its rule
# where some of the inputs are known.
attached_p = Primitive("polyad_attached")
attached_p.multiple_results = True


def _values(*operands: Any, push: Function, pull: Function, m: int, n: int) -> Any:
    return list(operands[:m])


def _values_jvp(primals: Any, tangents: Any, *, push: Function, pull: Function, m: int, n: int) -> Any:
    along = [ad.instantiate_zeros(t) for t in tangents[m + n :]]
    dzs = linear_p.bind(*primals[m:], *along, push=push, pull=pull, n=len(primals) - m)
    # The values by the primitive again: an outer derivative passes through them too.
    return attached_p.bind(*primals, push=push, pull=pull, m=m, n=n), dzs


def _values_batch(operands: Any, axes: Any, *, push: Function, pull: Function, m: int, n: int) -> Any:
    size = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    front = [batching.bdim_at_front(x, axis, size) for x, axis in zip(operands, axes, strict=True)]
    constants, their_axes = operands[m : m + n], axes[m : m + n]
    # The tangent of an argument has the axis that the argument has: each gets one.
    all_axes = (*their_axes, *(0,) * (len(operands) - m - n))
    over = {"push": _each(push, all_axes, size), "pull": _each(pull, all_axes, size)}
    return attached_p.bind(*front[:m], *constants, *front[m + n :], **over, m=m, n=n), [0] * m


attached_p.def_impl(_values)
attached_p.def_abstract_eval(_values)
ad.primitive_jvps[attached_p] = _values_jvp
batching.primitive_batchers[attached_p] = _values_batch
mlir.register_lowering(attached_p, mlir.lower_fun(_values, multiple_results=True))
