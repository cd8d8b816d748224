"""What an adapter must know about its framework, and what follows from that.

An adapter sees flat tuples of arrays and never a pytree: `f(*xs)` returns a
tuple of arrays. In a tuple of tangents or cotangents, None is the zero vector.
"""

from __future__ import annotations

import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from polyad.arrays import xp
from polyad.backends.directions import at_once, basis, largest, refuse_too_large
from polyad.backends.loop import loop
from polyad.backends.purity import refuse_changed
from polyad.errors import PrecisionError, UnsupportedError

Array = Any
Arrays = tuple[Array, ...]
Function = Callable[..., Any]
Pull = Callable[[Sequence[Array | None]], Arrays]
Sweep = Callable[..., Arrays]
Captured = Callable[[], Sequence[Array]]
Aside = tuple[Arrays, Arrays, Function, bool]
Riccati = tuple[float, float, float]
Push = Callable[[Arrays, Sequence[Array | None]], Arrays]
Transpose = Callable[[Arrays, Sequence[Array | None]], Arrays]

__all__ = [
    "LOOKS",
    "REVERSE",
    "Array",
    "Arrays",
    "Aside",
    "Backend",
    "Captured",
    "Function",
    "Points",
    "Pull",
    "Push",
    "Riccati",
    "Sweep",
    "Transpose",
    "contract",
    "joined",
    "no_rows",
    "of_some",
    "push_by_pullbacks",
    "with_aux",
    "zeros_for_none",
]


REVERSE = "choose mode='reverse', which evaluates it once, where the backend has it"


LOOKS = "looks at the value of an array, which is that of all points at once. Write xp.where(condition, a, b)"


class Points(NamedTuple):
    """A function of captured points that do not depend on each other, as one of a single point.

    f(*xs) is what of_point(xs, rows) is for the rows of the parts, one point behind the other.

    parts   what is captured, each with an axis of points in front
    ys      what f gives, of which the shapes and dtypes are known
    """

    of_point: Callable[[Arrays, Arrays], Arrays]
    parts: Arrays
    ys: Sequence[Any]


class Backend(ABC):
    """One array framework. Define `pushforward` or `pullback`; both are better.

    value     pushforward and pullback return f(*xs) first
    adjoint   <dys, push(dxs)> == <pull(dys), dxs>
    linear    pushforward in dxs, pullback in dys
    nests     either may be called inside an f that is given to either, also by
              the framework's own tools, and its result is differentiable in
              xs, in the (co)tangents and in whatever f captures
    restores  an exception inside f leaves the framework as it was

    With has_aux=True, f returns (ys, aux) with a second tuple of arrays that
    is not differentiated, and aux is returned last.
    """

    name: str
    host = False
    """Whether ndarrays are arrays of this framework as they are."""
    wraps: frozenset[str] = frozenset()
    """Backends whose traced arrays may stand inside the arrays of this one."""
    over: Backend | None = None
    """The backend whose arrays those of this one are made of, for jets."""
    lets_jets_through = True
    """Whether functions of the framework may take a jet for something else than a jet, where others raise."""
    may_compile: bool
    """Whether `compiles_here` depends on the place."""
    transforms: bool
    """Whether `scope` does."""
    folds = False
    """Whether its product of a stack of matrices with one matrix is one product of two."""
    pushed_by_jets = False
    """Whether polyad's jets push many directions faster than its own forward mode does."""
    modes: tuple[str, ...] = ()
    """The passes the framework has itself, in the order of its preference."""
    abs_at_zero = 0.0
    """Derivative of abs at 0."""
    clip_at_bound = 0.5
    """Derivative of clip at a bound."""
    eager = False
    """Whether functions run one by one at full speed, and compiling takes so long that it pays for many calls alone."""
    value_errors: tuple[type[Exception], ...] = ()
    """What it raises where a function that is being compiled looks at a value."""
    strategies: tuple[str, ...] = ("taped",)
    """What it can do with an inner derivative, see nested.py; all but taped need `aside` and `attach`."""

    def __init_subclass__(cls) -> None:
        own = {"forward": cls.pushforward, "reverse": cls.pullback}
        base = {"forward": Backend.pushforward, "reverse": Backend.pullback}
        native = tuple(mode for mode in ("reverse", "forward") if own[mode] is not base[mode])
        cls.modes = cls.__dict__.get("modes", native)
        cls.may_compile = cls.compiles_here is not Backend.compiles_here
        cls.transforms = cls.scope is not Backend.scope

    def __new__(cls, *args: Any, **kwargs: Any) -> Backend:
        if not cls.modes:
            raise TypeError(f"{cls.__name__} must define pushforward or pullback")
        return super().__new__(cls)

    # What every adapter states.

    @property
    @abstractmethod
    def namespace(self) -> Any:
        """The framework as an array-API namespace, traced arrays included."""

    @abstractmethod
    def owns(self, array: Any) -> bool:
        """Whether this is an array of the framework; asked once for each type."""

    # The two primitives. Each has a default in terms of the other.

    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        """(ys, dys): f and its derivative in the direction dxs. Forward mode.

        Without forward mode: the pullback is linear in its cotangent, and the
        pullback of that linear map is the pushforward. Two sweeps, whatever
        the number of outputs.
        """
        ys, pull, *aux = with_aux(self.pullback, has_aux)(f, xs)
        zeros = tuple(xp.zeros_like(y) for y in ys)
        used = [i for i, dx in enumerate(dxs) if dx is not None]
        _, push = self.pullback(lambda *cotangents: tuple(pull(cotangents)[i] for i in used), zeros)
        return (ys, push(tuple(dxs[i] for i in used)), *aux)

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        """(ys, pull): f, and the map of cotangents of ys to cotangents of xs.

        Without reverse mode: one pushforward for each entry of xs, in chunks;
        the Jacobian is kept and `pull` contracts it.
        """
        out, columns = self.columns(f, xs, has_aux)

        return (out[0], functools.partial(contract, xs, columns), *out[1:])

    # Many directions at once.

    def pushforwards(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        """As pushforward, for k directions: dxs and dys have a leading axis k."""
        k = next(dx.shape[0] for dx in dxs if dx is not None)
        if not k:
            ys, aux = f(*xs) if has_aux else (f(*xs), ())
            return (ys, tuple(map(no_rows, ys)), *((aux,) if has_aux else ()))
        push = with_aux(self.pushforward, has_aux)
        outs = [push(f, xs, tuple(None if dx is None else dx[i] for dx in dxs)) for i in range(k)]
        refuse_changed(self, outs[-1][0], outs[0][0], REVERSE)
        dys = tuple(xp.stack(dy) for dy in zip(*(out[1] for out in outs), strict=True))
        return (outs[0][0], dys, *outs[0][2:])

    def pullbacks(self, pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
        """As pull, for k cotangents: arguments and results have a leading axis k."""
        k = next(ct.shape[0] for ct in cotangents if ct is not None)
        rows = [pull(tuple(None if ct is None else ct[i] for ct in cotangents)) for i in range(k)]
        return tuple(xp.stack(row) for row in zip(*rows, strict=True))

    def takes_together(self, mode: str) -> bool:
        """Whether several directions of this mode in one sweep may take another time than one after the other."""
        if mode == "forward":
            return self.pushed_by_jets or type(self).pushforwards is not Backend.pushforwards
        return type(self).pullbacks is not Backend.pullbacks

    def last_pull(self, pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
        """pull(cotangents), for a pullback that is not called again."""
        return pull(cotangents)

    def columns(
        self, f: Function, xs: Arrays, has_aux: bool = False, chunk_size: int | None = None
    ) -> tuple[Any, list[Arrays]]:
        """((ys,) or (ys, aux), the Jacobian by columns): for each x its (x.size, *y.shape)."""
        push = with_aux(self.pushforwards, has_aux)
        found = {i: self._columns_of(push, f, xs, i, chunk_size) for i, x in enumerate(xs) if math.prod(x.shape)}
        outs = [out for out, _ in found.values()]
        if len(outs) > 1:
            refuse_changed(self, outs[-1][0], outs[0][0], REVERSE)
        out = outs[0] if outs else None
        if out is None:  # every x is empty: nothing was pushed
            out = f(*xs) if has_aux else (f(*xs),)
        empty = tuple(no_rows(y) for y in out[0])
        return out, [found[i][1] if i in found else empty for i in range(len(xs))]

    def _columns_of(self, push: Function, f: Function, xs: Arrays, i: int, chunk_size: int | None) -> Any:
        """((ys,) or (ys, aux), the columns of input number i)."""

        def pushed(start: Any, count: int) -> Any:
            return push(f, xs, tuple(basis(self, x, start, count) if j == i else None for j, x in enumerate(xs)))

        n = math.prod(xs[i].shape)
        first = at_once(n, largest(*xs), chunk_size)
        ys, dys, *aux = pushed(0, first)
        dys = tuple(dys)
        if first < n:
            refuse_too_large(ys, xs)
            step = at_once(n - first, largest(*xs, *ys), chunk_size)

            def more(start: Any, count: int) -> Arrays:
                again, dys, *_ = pushed(first + start, count)
                refuse_changed(self, again, ys, REVERSE)
                return tuple(dys)

            dys = joined([dys, self.chunked(more, n - first, step)])
        return (ys, *aux), dys

    def chunked(self, sweep: Callable[[Any, int], Arrays], n: int, step: int) -> Arrays:
        """sweep(start, count) over n directions, at most `step` at a time, joined along the axis in front."""
        return joined([sweep(start, min(step, n - start)) for start in range(0, n, step)])

    # What a framework may do better than the default.

    def namespace_of(self, array: Array) -> Any:
        """The namespace for this array, if the framework has several."""
        return self.namespace

    def of(self, array: Array) -> Backend:
        """The adapter of this array and of all of its type."""
        return self

    @property
    def native(self) -> Mapping[str, Function]:
        """What the framework does itself, by name: of `compositions.ACTIVATIONS`, and operations of layers.

        Values and derivatives of every order and mode are those of the
        primitives; jets have none of the operations and go through primitives.
        """
        return {}

    def batch(self, f: Function, has_shared: bool = False) -> Function:
        """f over a leading axis of every argument (vmap); a loop where there is none.

        has_shared  f returns (ys, shared) with a second tuple of arrays that are the same for each row, and so does
                    what is returned; ValueError where they are not
        """
        return loop(f, has_shared)

    def refusal(self, error: Exception) -> str:
        """What f does, in words, that made the framework's own `batch` raise this; "" where that is not known."""
        return ""

    def rows(self, x: Array, start: Any, count: int) -> Array:
        """x[start : start + count], where start may be traced by a loop of the framework."""
        return x[start : start + count]

    def aside(self, sweep: Sweep, f: Function, xs: Arrays, captured: Captured, beside: Arrays = ()) -> Aside | None:
        """sweep(f, *xs, *beside), a tuple of arrays, run on constants: nothing is kept for the pass around.

        captured  gives the arrays that can be found in f without running it
        returns   (zs, arrays, closed, dual): f captures these arrays, and
                  closed(*xs, *arrays) is f(*xs) as a function of them too; dual
                  is whether forward mode through it is right. None where f
                  captures something that cannot be seen from here
        """
        return None

    def attach(self, zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
        """The constants zs as a function of args, by its derivative.

        push  (args, tangents of args) -> tangents of zs; None in a tuple is zero
        pull  (args, cotangents of zs) -> cotangents of args
        """
        raise UnsupportedError(f"{self.name} cannot attach a derivative to constants")

    def both(self, condition: Array, then: Callable[[], Array]) -> Array:
        """condition & then(), constants of shape (); then need not run where the condition is false."""
        return condition & then()

    def chain(
        self, f: Function, riccati: Riccati, x: Array, t: Array, lap: Array | None
    ) -> tuple[Array, Array, Array] | None:
        """(y, its directions, its Laplacian) for a function of numbers y = f(x) that solves a Riccati equation.

        riccati  (shift, c, d): z = y + shift solves z' = d + c z²
        t        directions of x, (k, *x.shape), where axes behind the first may have length 1
        lap      Laplacian of x, of its shape; None is zero
        returns  None where the framework has no better way than one function after the other
        """
        return None

    def checkpoint(self, f: Function, xs: Arrays) -> Arrays | None:
        """f(*xs), of which the pass around keeps the inputs alone; None where the framework has no such thing."""
        return None

    def preferred_strategy(self, mode: str) -> tuple[str, str]:
        """(the strategy of `nested_switching("auto")` for a pass of this mode, why), where costs.json has none."""
        return "taped", "the only one that was measured for it"

    def compiles_here(self) -> bool:
        """Whether what is computed at this place is compiled later."""
        return False

    def loops_here(self) -> bool:
        """Whether this place is the body of a loop of the framework, which runs many times and is seen once."""
        return False

    def differentiates_here(self, arrays: Sequence[Array]) -> bool:
        """Whether the framework is going to differentiate what is computed of these arrays at this place."""
        return False

    def push_mode(self) -> str:
        """The pass of one direction alone: "forward", or "reverse" where the pullback of the pullback is faster."""
        return "forward"

    def pushed_by_pullbacks(
        self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False
    ) -> tuple[Any, ...] | None:
        """As pushforward, by the pullback of the pullback; None where `pullback` twice is as good."""
        return None

    def in_formulas(self, f: Function) -> Function:
        """f, without functions that the framework differentiates wrongly one time more than usual."""
        return f

    def forward_is_right(self, pull: Pull) -> bool:
        """Whether forward mode, differentiated again, is right for the f of this pullback."""
        return True

    def rows_apart(self, pull: Pull, batch: int) -> bool:
        """Whether what this pullback recorded proves that a row of f(x) depends on the same row of x alone."""
        return False

    def proves_rows_apart(self, f: Function, x: Array) -> bool:
        """The same of the f of any pass, without evaluating it; may raise what f does."""
        return False

    def points(self, f: Function, xs: Arrays) -> Points | None:
        """f, where it is seen without evaluating it that it is one of captured points; may raise what f does."""
        return None

    def of_others(self, f: Function, captured: Arrays) -> Callable[[Arrays, Arrays], Arrays] | None:
        """(xs, others) -> f(*xs) with others in the place of what it captures; None where that cannot be exchanged.

        It need not be all of f that has the others: who asks compares what comes out.
        """
        return None

    def points_from(self) -> int:
        """Entries of a Jacobian times points, from which one point at a time takes less time than all of them."""
        return 2**23

    def shielded(self, f: Function, *args: Any) -> Any:
        """f(*args), into which a compiler of the framework that cannot differentiate twice does not look."""
        return f(*args)

    def compile(self, f: Function, captured: Captured = tuple) -> Function:
        """f, made faster for repeated calls with the same shapes.

        captured  gives the arrays that f closes over, as they are now; what is
                  returned takes them behind the arguments of f. None where f has
                  become another function
        """
        more = len(captured())
        return (lambda *args: f(*args[: len(args) - more])) if more else f

    @property
    def batches(self) -> bool:
        """Whether the framework batches a function itself, where others loop."""
        return type(self).batch is not Backend.batch

    @property
    def compiles(self) -> bool:
        """Whether the framework brings a compiler."""
        return type(self).compile is not Backend.compile

    def signature(self, array: Array) -> Any:
        """What compiled code depends on, besides the values; hashable."""
        return tuple(array.shape), array.dtype, self.device(array)

    def tracked(self) -> AbstractContextManager[Any]:
        """A block in which the framework records for reverse mode, whatever is said around it."""
        return nullcontext()

    def untracked(self) -> AbstractContextManager[Any]:
        """A block in which the framework need not record for reverse mode."""
        return nullcontext()

    def records(self) -> bool:
        """Whether the framework could differentiate what is computed here; not inside of torch.no_grad()."""
        return True

    def refuses_jets(self) -> bool:
        """Whether every function that has a derivative of its own, as custom rules do, refuses a jet here."""
        return not self.lets_jets_through

    def stop_gradient(self, array: Array) -> Array:
        """The same values; a constant to every derivative around it."""
        raise UnsupportedError(f"{self.name} has no stop_gradient")

    def output_shapes(self, f: Function, xs: Arrays) -> list[tuple[int, ...]] | None:
        """Shapes of f(*xs) where the framework tells them without running f."""
        return None

    def scope(self) -> Any:
        """A token of the transformation around this call, equal inside the same one; of a host false outside of any."""
        return None

    def tracing(self) -> bool:
        """Whether a function of eager arrays becomes a graph here, so that what it would be asked is not known.

        What cannot be compared then is NaN where it would have been refused.
        """
        return False

    def draws(self) -> bool:
        """Whether random numbers are drawn in the graph that is traced here, others each time that it runs."""
        return False

    def concrete(self, array: Array) -> bool:
        """Whether the value of this number can be looked at."""
        return True

    def anywhere(self, mask: Array) -> Array:
        """Whether the mask is true at any point that a vmap around goes over, as an array of shape () outside of it."""
        return xp.any(mask)

    def device(self, array: Array) -> Any:
        """Where the array lies, or None if it does not matter."""
        return None

    def side_by_side(self, arrays: Sequence[Array]) -> bool:
        """Whether all of these lie on one device."""
        devices = [*map(self.device, arrays)]
        return not devices or devices.count(devices[0]) == len(devices)

    def hardware(self, array: Array) -> str:
        """What computes on this array, such as "NVIDIA H100"; "" for the processor of the machine."""
        return ""

    def devices(self) -> tuple[str, ...]:
        """Names of the devices that there are here, as `asarray` takes them."""
        return ("cpu",)

    def default_precision(self, name: str) -> AbstractContextManager[Any]:
        """A block in which arrays that are made without a dtype have the one of this name, where the framework
        leaves that to its user."""
        return nullcontext()

    def wait(self, arrays: Arrays) -> Arrays:
        """The arrays, when they have been computed: a framework may return before."""
        return arrays

    # In and out.

    def dtype(self, name: str) -> Any:
        """The framework's dtype of this name, such as "float64"."""
        try:
            return getattr(self.namespace, name)
        except AttributeError:
            raise PrecisionError(f"{self.name} has no dtype {name!r}; write 'float32' or 'float64'") from None

    def default_dtype(self) -> str:
        """Name of the floating type of arrays that were made without one."""
        return "float64"

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        """An array of the framework from an ndarray, a number, or by DLPack."""
        return self.namespace.asarray(values, dtype=self.dtype(dtype) if dtype else None)

    def constant(self, values: Any, like: Array = None) -> Array:
        """An ndarray that met arrays of this framework, such as like, in one function of `xp`."""
        return self.asarray(values, device=None if like is None else self.device(like))

    def to_host(self, array: Array) -> Any:
        """The ndarray of an untraced array; DetachError where a derivative would be lost."""
        raise UnsupportedError(f"{self.name} cannot give out ndarrays")


def with_aux(primitive: Function, has_aux: bool) -> Function:
    """The primitive with has_aux, which an adapter need not know.

    Without it, aux goes out with ys and gets no cotangent; it must then be
    floating, as every y.
    """
    if not has_aux:
        return primitive
    if "has_aux" in inspect.signature(primitive).parameters:
        return functools.partial(primitive, has_aux=True)

    def both(f: Function, xs: Arrays, *dxs: Any) -> Any:
        count = [0]

        def flat(*xs: Array) -> Arrays:
            ys, aux = f(*xs)
            count[0] = len(ys)
            return (*ys, *aux)

        values, rest = primitive(flat, xs, *dxs)
        n = count[0]
        if dxs:  # rest are tangents
            return values[:n], rest[:n], values[n:]
        zeros = tuple(xp.zeros_like(a) for a in values[n:])
        return values[:n], lambda cotangents: rest((*cotangents, *zeros)), values[n:]

    return both


@functools.cache
def _short(kind: type, name: str, rule: str) -> Function | None:
    """The method of this name, a short way of `rule`; None where a subclass has a rule of its own, or none is there."""
    here, there = ([base for base in kind.__mro__ if key in vars(base)] for key in (name, rule))
    return getattr(kind, name) if here and there and issubclass(here[0], there[0]) else None


def push_by_pullbacks(backend: Any, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
    """As pushforward, by the pullback of the pullback, whatever forward mode the backend has."""
    own = _short(type(backend), "pushed_by_pullbacks", "pullback")  # type: ignore[arg-type]  # classes can be hashed
    found = None if own is None else own(backend, f, xs, dxs, has_aux)
    if found is not None:
        return found
    push = with_aux(functools.partial(Backend.pushforward, backend), has_aux)
    return push(backend.in_formulas(f), xs, dxs)


def contract(xs: Arrays, columns: Sequence[Arrays], cotangents: Sequence[Array | None]) -> Arrays:
    """The pullback from the columns of the Jacobian: for each x its (x.size, *y.shape)."""
    grads = []
    for x, dys in zip(xs, columns, strict=True):
        grad = xp.zeros_like(x)
        for dy, ct in zip(dys, cotangents, strict=True):
            if ct is not None:
                flat = xp.reshape(dy, (dy.shape[0], math.prod(ct.shape)))
                grad = grad + xp.reshape(flat @ xp.reshape(ct, (flat.shape[1],)), tuple(x.shape))
        grads.append(grad if grad.dtype == x.dtype else xp.astype(grad, x.dtype))
    return tuple(grads)


def joined(parts: Sequence[Arrays]) -> Arrays:
    """Tuples of arrays, one behind the other along their first axes."""
    return parts[0] if len(parts) == 1 else tuple(xp.concat(list(part)) for part in zip(*parts, strict=True))


def no_rows(y: Array) -> Array:
    """An array of shape (0, *y.shape)."""
    return xp.zeros_like(y)[None][:0]


def zeros_for_none(tangents: Sequence[Array | None], like: Arrays) -> Arrays:
    """The tangents, for frameworks that have no symbolic zero."""
    return tuple(xp.zeros_like(x) if t is None else t for t, x in zip(tangents, like, strict=True))


def of_some(f: Function, xs: Sequence[Array | None], places: Sequence[int]) -> Function:
    """f as a function of the arguments at these places, the others as in xs."""

    def moved(*some: Array) -> Any:
        given = dict(zip(places, some, strict=True))
        return f(*(given.get(i, x) for i, x in enumerate(xs)))

    return moved
