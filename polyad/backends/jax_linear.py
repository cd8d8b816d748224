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
    maps = {
        "push": lambda *operands: forward(operands[:k], operands[n:]),
        "pull": lambda *operands: backward(operands[k:n], operands[n:]),
        "n": n + len(args),
    }

    def derivative(primals: Any, tangents: Any) -> Any:
        _, constants, args = primals
        # The values through attached() again: an outer derivative passes through them too.
        return attached(*primals), tuple(linear_p.bind(*constants, *args, *tangents[2], **maps))

    attached = jax.custom_jvp(lambda zs, constants, args: zs)
    attached.defjvp(derivative)
    return attached(zs, constants, args)


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

    def each(f: Function) -> Function:
        return lambda *xs: jax.vmap(f, (*axes[:n], *(0,) * (len(xs) - n)), axis_size=size)(*xs)

    ys = linear_p.bind(*operands[:n], *along, push=each(push), pull=each(pull), n=n)
    return ys, [0] * len(ys)


linear_p.def_impl(_run)
linear_p.def_abstract_eval(_shapes)
ad.primitive_jvps[linear_p] = _jvp
ad.primitive_transposes[linear_p] = _transpose
batching.primitive_batchers[linear_p] = _batch
mlir.register_lowering(linear_p, mlir.lower_fun(_run, multiple_results=True))
