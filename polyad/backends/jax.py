"""JAX: jvp, vjp, vmap and jit as they are."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.experimental
import jax.numpy as jnp
import numpy as np

from polyad.arrays import dtype_name, xp
from polyad.backends import jax_linear, jax_points, jax_rows
from polyad.backends.base import (
    LOOKS,
    REVERSE,
    Array,
    Arrays,
    Aside,
    Backend,
    Captured,
    Function,
    Points,
    Pull,
    Push,
    Sweep,
    Transpose,
    joined,
    no_rows,
    of_some,
    zeros_for_none,
)
from polyad.backends.directions import at_once, basis, largest, refuse_too_large
from polyad.backends.jax_native import NATIVE, differentiated, looped, traced
from polyad.backends.purity import refuse_changed
from polyad.errors import DetachError, PrecisionError

__all__ = ["Jax"]


class Jax(Backend):
    """The primitives are JAX's own, so they nest with grad, jit, vmap and scan."""

    name = "jax"
    lets_jets_through = False
    abs_at_zero = 1.0
    strategies = ("taped", "recompute", "forward_over_reverse")

    @property
    def value_errors(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        return LOOKS_AT_VALUES

    @property
    def namespace(self) -> Any:
        return jnp

    @property
    def native(self) -> Mapping[str, Function]:
        return NATIVE

    def owns(self, array: Any) -> bool:
        return isinstance(array, jax.Array)

    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        if traced() and differentiated():  # a loss of the product, 1024 x 64 x 4: 2.3 ms, by jax.jvp 3.1 ms (2026-11)
            return self._linearized(f, xs, dxs, has_aux)
        return jax.jvp(f, xs, zeros_for_none(dxs, xs), has_aux=has_aux)

    def _linearized(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool) -> Any:
        moving = [i for i, dx in enumerate(dxs) if dx is not None] or list(range(len(xs)))
        ys, push, *aux = jax.linearize(of_some(f, xs, moving), *(xs[i] for i in moving), has_aux=has_aux)
        return (ys, push(*(xp.zeros_like(xs[i]) if dxs[i] is None else dxs[i] for i in moving)), *aux)

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        ys, pull, *aux = jax.vjp(f, *xs, has_aux=has_aux)
        return (ys, lambda cotangents: pull(zeros_for_none(cotangents, ys)), *aux)

    def pushforwards(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        moving = [i for i, dx in enumerate(dxs) if dx is not None]
        if not traced():  # linearizing is a trace at each call: 5.7 ms, and 2.8 without (16 x 12, 2026-11)
            return self._pushed_at_once(f, xs, dxs, moving, has_aux)
        ys, push, *aux = jax.linearize(of_some(f, xs, moving), *(xs[i] for i in moving), has_aux=has_aux)
        return (ys, _each(push)(*(dxs[i] for i in moving)), *aux)

    def _pushed_at_once(
        self, f: Function, xs: Arrays, dxs: Sequence[Array | None], moving: list[int], has_aux: bool
    ) -> Any:
        """One forward pass over all directions, whose value has none of their axis."""
        points = [xs[i] for i in moving]

        def push(*directions: Array) -> Any:
            return jax.jvp(of_some(f, xs, moving), points, list(directions), has_aux=has_aux)

        return jax.vmap(push, out_axes=(None, 0, None)[: 2 + has_aux])(*(dxs[i] for i in moving))

    def pullbacks(self, pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
        given = [i for i, ct in enumerate(cotangents) if ct is not None]
        one = of_some(lambda *cotangents: pull(cotangents), cotangents, given)
        return _each(one)(*(cotangents[i] for i in given))

    def columns(
        self, f: Function, xs: Arrays, has_aux: bool = False, chunk_size: int | None = None
    ) -> tuple[Any, list[Arrays]]:
        """One linearization an input, which every chunk of its columns goes through."""
        if not largest(*xs):
            return super().columns(f, xs, has_aux, chunk_size)
        columns, first = [], None
        for i, x in enumerate(xs):
            ys, push, *aux = jax.linearize(of_some(f, xs, [i]), x, has_aux=has_aux)
            n = math.prod(x.shape)
            refuse_too_large(ys, xs)
            first = first or ys
            refuse_changed(self, ys, first, REVERSE)

            def pushed(start: Any, count: int, push: Any = push, x: Array = x) -> Arrays:
                return _each(push)(basis(self, x, start, count))

            step = at_once(n, largest(*xs, *ys), chunk_size)
            columns.append(self.chunked(pushed, n, step) if n else tuple(map(no_rows, ys)))
        return (ys, *aux), columns

    def chunked(self, sweep: Callable[[Any, int], Arrays], n: int, step: int) -> Arrays:
        whole = n // step
        if whole < 2 or (step == 1 and whole <= FEW) or not traced():
            return super().chunked(sweep, n, step)
        # One loop for the compiler, which would take its time for a copy of f for each chunk.
        found = jax.lax.map(lambda i: sweep(i * step, step), jnp.arange(whole))
        first = tuple(z.reshape(whole * step, *z.shape[2:]) for z in found)
        return joined([first, sweep(whole * step, n - whole * step)]) if n % step else first

    def batch(self, f: Function, has_shared: bool = False) -> Function:
        return jax.vmap(f, out_axes=(0, None) if has_shared else 0)

    def refusal(self, error: Exception) -> str:
        return LOOKS if isinstance(error, LOOKS_AT_VALUES) else ""

    def rows(self, x: Array, start: Any, count: int) -> Array:
        return jax.lax.dynamic_slice_in_dim(x, start, count)

    def both(self, condition: Array, then: Callable[[], Array]) -> Array:
        closed, found, _ = _closed(lambda: (then(),), ())
        constants = map(jax.lax.stop_gradient, found)  # a pass around would differentiate what is captured
        return jax.lax.cond(condition, lambda *given: closed(*given)[0], lambda *_: condition, *constants)

    def checkpoint(self, f: Function, xs: Arrays) -> Arrays | None:
        try:
            return jax.checkpoint(f)(*xs)
        except LOOKS_AT_VALUES:  # a trace of f does not have them
            return f(*xs)

    def aside(self, sweep: Sweep, f: Function, xs: Arrays, captured: Captured, beside: Arrays = ()) -> Aside | None:
        try:
            closed, found, dual = _closed(f, xs)
        except LOOKS_AT_VALUES:
            return None
        constants = tuple(map(jax.lax.stop_gradient, found))
        zs = sweep(lambda *xs: closed(*xs, *constants), *map(jax.lax.stop_gradient, (*xs, *beside)))
        return zs, found, closed, dual

    def attach(self, zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
        return jax_linear.attach(zs, args, push, pull)

    def proves_rows_apart(self, f: Function, x: Array) -> bool:
        return jax_rows.rows_apart(f, x)

    def points(self, f: Function, xs: Arrays) -> Points | None:
        return jax_points.points(f, xs)

    def points_from(self) -> int:
        # Uncompiled, of about 1,250 parameters, 128 points take 15 to 28 ms in place of 19, 1024 27 in place of 350
        # (tanh MLPs, one CPU thread, jax 0.10, 2026-11): two more traces of f.
        return 2**12 if traced() else 2**25

    def compiles_here(self) -> bool:
        return traced()

    def preferred_strategy(self, mode: str) -> tuple[str, str]:
        if traced():
            return "taped", "compiled, a pass of jets is 5 to 9 % faster than if it is recomputed"
        return "taped", "uncompiled, the others cost a trace at each call"

    def loops_here(self) -> bool:
        return looped()

    def differentiates_here(self, arrays: Sequence[Array]) -> bool:
        return differentiated()

    def compile(self, f: Function, captured: Captured = tuple) -> Function:
        more = len(captured())
        if not more:
            return jax.jit(f)

        def of_all(*args: Array) -> Arrays:
            n = len(args) - more
            traced = {id(array): tracer for array, tracer in zip(captured(), args[n:], strict=True)}
            program = jax.make_jaxpr(lambda *xs: f(*xs))(*args[:n])
            constants = [traced.get(id(c), c) for c in program.consts]
            return tuple(jax.core.eval_jaxpr(program.jaxpr, constants, *args[:n]))

        return jax.jit(of_all)

    def signature(self, array: Array) -> Any:
        return array.aval

    def stop_gradient(self, array: Array) -> Array:
        return jax.lax.stop_gradient(array)

    def output_shapes(self, f: Function, xs: Arrays) -> list[tuple[int, ...]]:
        return [y.shape for y in jax.eval_shape(f, *xs)]

    def scope(self) -> Any:
        return _trace_state()

    def concrete(self, array: Array) -> bool:
        try:
            bool(array)  # tracers of grad and jvp know their values, those of jit and vmap do not
        except jax.errors.ConcretizationTypeError:
            return False
        return True

    def hardware(self, array: Array) -> str:
        kind = jax.devices()[0].device_kind  # of the default device: a tracer has none
        return "" if kind == "cpu" else kind

    def devices(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(["cpu", *(device.platform for device in jax.devices())]))

    def default_dtype(self) -> str:
        return "float64" if jax.config.jax_enable_x64 else "float32"

    def default_precision(self, name: str) -> Any:
        home = jax if hasattr(jax, "enable_x64") else jax.experimental  # which older versions have
        return home.enable_x64(name == "float64")  # in this thread only, unlike the flag

    def wait(self, arrays: Arrays) -> Arrays:
        return jax.block_until_ready(arrays)

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        wanted = dtype or (dtype_name(values.dtype) if hasattr(values, "dtype") else "")
        if wanted == "float64" and not jax.config.jax_enable_x64:
            raise PrecisionError(
                "float64 was asked of JAX, whose 64-bit types are switched off; JAX would compute in float32. "
                "Type jax.config.update('jax_enable_x64', True) at the start, or set JAX_ENABLE_X64=1 in the "
                "environment, or use dtype='float32'"
            )
        if isinstance(values, jax.Array):
            array = values if dtype is None else values.astype(dtype)
        else:
            array = jnp.array(values, dtype=dtype)  # a copy: nobody may write to what JAX holds
        return array if device is None else jax.device_put(array, _device(device))

    def constant(self, values: Any, like: Array = None) -> Array:
        return values  # every function of JAX takes ndarrays

    def to_host(self, array: Array) -> Any:
        if isinstance(array, jax.core.Tracer):
            raise DetachError(
                "convert: this is a JAX tracer (inside jit, grad or vmap); as an array of another framework it would "
                "lose its derivative. Convert before the call, outside the transformation"
            )
        return np.asarray(array)


# Sweeps of one direction that are written out for the compiler, one after the other: up to so many take as
# long to compile as jax.lax.map and run up to 1/4 faster (tanh MLPs, jit, one CPU thread, jax 0.10, 2026-11).
FEW = 16


def _each(push: Function) -> Function:
    """The linear map for directions along an axis in front: of one alone without batching, which costs XLA time."""

    def pushed(*directions: Array) -> Arrays:
        if len(directions[0]) != 1:
            return jax.vmap(push)(*directions)
        return tuple(dy[None] for dy in push(*(direction[0] for direction in directions)))

    return pushed


# What JAX raises where f wants to see a value.
LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def _closed(f: Function, xs: Arrays) -> tuple[Function, Arrays, bool]:
    """(closed, arrays, symmetric): the traced arrays that f captures, and f with them as further arguments.

    symmetric is whether second derivatives are: a rule that was written by hand
    need not be the derivative of anything.

    jax.closure_convert leaves out what it takes for unperturbed, and remembers
    what an equal function captured before.
    """
    closed_jaxpr, shapes = jax.make_jaxpr(lambda *xs: f(*xs), return_shape=True)(*xs)
    constants, tree = closed_jaxpr.consts, jax.tree.structure(shapes)
    traced = [
        i for i, c in enumerate(constants) if isinstance(c, jax.core.Tracer) and jnp.issubdtype(c.dtype, jnp.inexact)
    ]

    def closed(*args: Array) -> Any:
        given = dict(zip(traced, args[len(xs) :], strict=True))
        operands = [given.get(i, c) for i, c in enumerate(constants)]
        return jax.tree.unflatten(tree, jax.core.eval_jaxpr(closed_jaxpr.jaxpr, operands, *args[: len(xs)]))

    return closed, tuple(constants[i] for i in traced), not _has_rules(closed_jaxpr.jaxpr)


def _has_rules(jaxpr: Any) -> bool:
    """Whether a custom_jvp or custom_vjp function is called."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("custom_"):
            return True
        for value in equation.params.values():
            inner = [getattr(x, "jaxpr", x) for x in (value if isinstance(value, tuple | list) else [value])]
            if any(hasattr(x, "eqns") and _has_rules(x) for x in inner):
                return True
    return False


def _trace_state() -> Any:
    from jax._src import core  # the one thing that has no public name; Flax reads it the same way

    return core.get_opaque_trace_state(convention="flax")


def _device(device: Any) -> Any:
    return jax.devices(device)[0] if isinstance(device, str) else device
