"""PyTorch: its tape outside of torch.func, and torch.func inside of it."""

import functools
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.autograd import forward_ad
from torch.func import jvp, vmap

from polyad.arrays import dtype_name
from polyad.backends.base import (
    LOOKS,
    Array,
    Arrays,
    Aside,
    Backend,
    Captured,
    Function,
    Pull,
    Push,
    Riccati,
    Sweep,
    Transpose,
    of_some,
    zeros_for_none,
)
from polyad.backends.loop import of_no_rows
from polyad.backends.torch_attach import attach
from polyad.backends.torch_chain import chain
from polyad.backends.torch_forward import by_formulas
from polyad.backends.torch_func import of_rows, vjp
from polyad.backends.torch_graph import (
    drawn,
    has_custom_functions,
    reaches_outside,
    recorded,
    refuse_again,
    refuse_dead_ends,
    refuse_third_order,
    unwrapped,
)
from polyad.backends.torch_namespace import inside_functorch, namespace, traced, tracing
from polyad.backends.torch_native import NATIVE
from polyad.backends.torch_points import of_others
from polyad.backends.torch_replay import Replay
from polyad.backends.torch_rows import rows_apart
from polyad.backends.torch_tanh import running
from polyad.errors import DetachError, ImpureFunctionError

__all__ = ["Torch"]


def _as_recorded(push: Function) -> Function:
    """A pass that runs f with recording on, since no_grad() inside of f means something; its results have no graph."""

    @functools.wraps(push)
    def pushed(*args: Any, **options: Any) -> Any:
        if torch.is_grad_enabled() or inside_functorch():
            return push(*args, **options)
        with _recorded():
            groups = push(*args, **options)
        return tuple([tuple([_release(y) for y in group]) for group in groups])

    return pushed


class Torch(Backend):
    """Results carry a graph where an outer backward() or grad could ask for one, else none."""

    name = "torch"
    folds = True
    pushed_by_jets = True
    eager = True
    clip_at_bound = 1.0
    strategies = ("taped", "recompute", "forward_over_reverse")

    @property
    def namespace(self) -> Any:
        return namespace

    @property
    def native(self) -> Mapping[str, Function]:
        return NATIVE

    def owns(self, array: Any) -> bool:
        return isinstance(array, torch.Tensor)

    def pullback(self, f: Function, xs: Arrays, has_aux: bool = False) -> Any:
        return vjp(by_formulas(f), xs, has_aux) if inside_functorch() else _tape(f, xs, has_aux)

    @_as_recorded
    def pushforward(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        moving, (points, directions) = _moving(f, xs, dxs)
        with _dual_numbers:
            ys, dys, *aux = jvp(moving, points, directions, has_aux=has_aux)
        return (ys, _same_dtypes(dys, ys), *aux)

    @_as_recorded
    def pushforwards(self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False) -> Any:
        moving, (points, directions) = _moving(f, xs, dxs)
        if not all(map(len, directions)):  # vmap goes over no rows, but there are none to take the values from
            return super().pushforwards(f, xs, dxs, has_aux)
        each = vmap(lambda *some: jvp(moving, points, some, has_aux=has_aux), randomness="same")
        with _dual_numbers:
            ys, dys, *aux = each(*directions)
        return (tuple(y[0] for y in ys), _same_dtypes(dys, ys), *(tuple(a[0] for a in group) for group in aux))

    def last_pull(self, pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
        # The tape is freed as it is read, whose memory the pass then uses again: 10 % less time.
        return pull(cotangents, again=False) if hasattr(pull, "outputs") else pull(cotangents)  # type: ignore[call-arg]

    def pullbacks(self, pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
        one_alone = all(len(ct) == 1 for ct in cotangents if ct is not None)
        if one_alone or not _batches(pull):
            return super().pullbacks(pull, cotangents)
        return _together(pull, cotangents)

    def batch(self, f: Function, has_shared: bool = False) -> Function:
        def batched(*xs: Array) -> Any:
            try:
                return of_rows(f, xs, has_shared)
            except IndexError:
                if len(xs[0]):
                    raise
                return of_no_rows(f, xs, has_shared)  # max, and some passes through backward, know no batch of none

        return batched

    def refusal(self, error: Exception) -> str:
        words = str(error)
        return next((what for part, what in REFUSED_IN_A_BATCH.items() if part in words), "")

    def aside(self, sweep: Sweep, f: Function, xs: Arrays, captured: Captured, beside: Arrays = ()) -> Aside | None:
        if inside_functorch() or forward_ad._current_level >= 0 or torch.compiler.is_compiling():
            return None  # their tensors are wrapped: the framework's own graph of them is right
        if self.draws():
            return None  # a graph would draw other numbers the second time
        replay = Replay(f)
        try:
            with torch.no_grad():
                zs = tuple(z.detach() for z in sweep(replay.first, *(x.detach() for x in (*xs, *beside))))
        finally:
            replay.end()
        complete = replay.complete and not self.draws()
        return (zs, replay.captured, replay.closed, replay.dual) if complete else None

    def attach(self, zs: Arrays, args: Arrays, push: Push, pull: Transpose) -> Arrays:
        return attach(zs, args, push, pull)

    def chain(
        self, f: Function, riccati: Riccati, x: Array, t: Array, lap: Array | None
    ) -> tuple[Array, Array, Array] | None:
        return chain(f, riccati, x, t, lap)

    def push_mode(self) -> str:
        # Of tanh MLPs, in forward passes, by torch.func.jvp and by two pullbacks: 1024 x 64 x 4 alone 4.6 and 2.8,
        # in a loss 7.6 and 4.9; 16 x 12 x 3 30 and 11; 256 x 256 x 4 3.4 and 2.5 (one CPU thread, torch 2.13, 2026-11).
        return "forward" if inside_functorch() or forward_ad._current_level >= 0 else "reverse"

    def pushed_by_pullbacks(
        self, f: Function, xs: Arrays, dxs: Sequence[Array | None], has_aux: bool = False
    ) -> tuple[Any, ...] | None:
        # One tape for both, and no mode that looks at each function of f where the tape shows that there is no norm.
        if inside_functorch() or forward_ad._current_level >= 0 or torch._C._len_torch_function_stack() or tracing():
            return None
        if torch.is_inference_mode_enabled():
            return None
        ys, pull, *aux = _tape(f, xs, has_aux)
        if any("Norm" in node.name() for node in _between(pull.inputs, pull.outputs)):
            ys, pull, *aux = _tape(by_formulas(f, again=True), xs, has_aux)
        return (ys, _pushed(pull, dxs), *aux)

    def in_formulas(self, f: Function) -> Function:
        return by_formulas(f)

    def forward_is_right(self, pull: Pull) -> bool:
        nodes = _between(getattr(pull, "inputs", ()), getattr(pull, "outputs", ()))
        return not any(node.name() in FORWARD_WRONGLY for node in nodes)

    def rows_apart(self, pull: Pull, batch: int) -> bool:
        xs: Arrays = getattr(pull, "inputs", ())
        ys: Arrays = getattr(pull, "outputs", ())
        if len(xs) != 1 or len(ys) != 1 or not rows_apart(ys[0], xs[0], batch):
            return False
        pull.batches = True  # type: ignore[attr-defined]  # of all nodes between them the names are known
        return True

    def of_others(self, f: Function, captured: Arrays) -> Any:
        # Neither who pushes forward nor an outer transformation asks a tensor for its gradient: nobody would see
        # that what comes out is differentiated.
        around = inside_functorch() or forward_ad._current_level >= 0
        return None if around else of_others(f, captured)

    def points_from(self) -> int:
        # Of about 1,250 parameters, 64 points take 2.1 ms in place of 1.0, 128 2.0 in place of 4.8, and of 4,500 ones
        # 256 points 6.3 in place of 55 (tanh MLPs, one CPU thread, torch 2.13, 2026-11).
        return 2**23

    def shielded(self, f: Function, *args: Any) -> Any:
        # What torch.compile makes of the inside of f has no second derivative.
        return f(*args) if "torch._dynamo" not in sys.modules else _unseen()(f, *args)

    def differentiates_here(self, arrays: Sequence[Array]) -> bool:
        return torch.is_grad_enabled() and any(array.requires_grad for array in arrays)

    def tracked(self) -> Any:
        return torch.enable_grad()

    def untracked(self) -> Any:
        return torch.no_grad()

    def records(self) -> bool:
        return torch.is_grad_enabled()

    def refuses_jets(self) -> bool:
        # While torch records, a jet that is made inside of an autograd.Function raises; one may make none.
        return torch.is_grad_enabled() and not has_custom_functions()

    def compile(self, f: Function, captured: Captured = tuple) -> Function:
        from polyad.backends.torch_compile import compiled  # half a second to import

        return compiled(f, captured)

    @property
    def value_errors(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        from polyad.backends.torch_compile import VALUE_ERRORS

        return VALUE_ERRORS

    def signature(self, array: Array) -> Any:
        return array.shape, array.dtype, array.device, array.stride(), array.requires_grad

    def stop_gradient(self, array: Array) -> Array:
        return array.detach()

    def scope(self) -> Any:
        depth = functorch.get_dynamic_layer_stack_depth()
        trace = traced()
        return _Place(depth, trace) if depth or trace is not None else _OUTSIDE

    def tracing(self) -> bool:
        return tracing()

    def draws(self) -> bool:
        mode = traced()
        return mode is not None and drawn(mode.tracer.graph.nodes)

    def concrete(self, array: Array) -> bool:
        if tracing():
            return False
        while torch._C._functorch.is_functorch_wrapped_tensor(array):
            if torch._C._functorch.is_batchedtensor(array):
                return False
            array = torch._C._functorch.get_unwrapped(array)
        return True

    def anywhere(self, mask: Array) -> Array:
        with temporarily_clear_interpreter_stack():
            return unwrapped(mask).any()

    def device(self, array: Array) -> Any:
        return array.device

    def side_by_side(self, arrays: Sequence[Array]) -> bool:
        return all(map(_on_cpu, arrays)) or super().side_by_side(arrays)

    def hardware(self, array: Array) -> str:
        if array is None or array.device.type == "cpu":
            return ""
        return torch.cuda.get_device_name(array.device) if array.device.type == "cuda" else array.device.type

    def devices(self) -> tuple[str, ...]:
        found = torch.accelerator.current_accelerator()
        count = torch.accelerator.device_count() if found is not None and torch.accelerator.is_available() else 0
        return ("cpu", *(f"{found}:{i}" for i in range(count)))

    def default_dtype(self) -> str:
        return dtype_name(torch.get_default_dtype())

    @contextmanager
    def default_precision(self, name: str) -> Iterator[None]:
        before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype(name))  # torch has one for all threads
        try:
            yield
        finally:
            torch.set_default_dtype(before)

    def wait(self, arrays: Arrays) -> Arrays:
        if any(array.device.type != "cpu" for array in arrays):
            torch.accelerator.synchronize()
        return arrays

    def asarray(self, values: Any, dtype: str | None = None, device: Any = None) -> Array:
        wanted = self.dtype(dtype) if dtype else None
        if isinstance(values, torch.Tensor):
            return values.to(device=device, dtype=wanted)
        if isinstance(values, np.ndarray | np.generic):
            values = np.asarray(values)
            values = values if values.flags.writeable and min(values.strides, default=0) >= 0 else values.copy()
            return torch.from_numpy(values).to(device=device, dtype=wanted)
        return torch.tensor(values, dtype=wanted, device=device)

    def to_host(self, array: Array) -> Any:
        if torch._C._functorch.is_functorch_wrapped_tensor(array) or (torch.is_grad_enabled() and array.requires_grad):
            raise DetachError(
                "convert: this tensor requires a gradient; as an array of another framework it would lose it. "
                "Convert x.detach(), or under torch.no_grad(), if its values are all you want"
            )
        return array.detach().cpu().numpy()


class _Place(NamedTuple):
    """How many transformations of torch.func run here, and the trace around; true inside of a transformation."""

    depth: int
    trace: Any

    def __bool__(self) -> bool:
        return self.depth > 0


_OUTSIDE = _Place(0, None)


# The level of torch's dual numbers is one variable for all threads (torch 2.13):
# of two that push forward at once one raises, or both go wrong in silence.
_dual_numbers = threading.RLock()


_on_cpu = attrgetter("is_cpu")


@functools.cache
def _unseen() -> Function:
    """(f, *args) -> f(*args), which torch.compile does not trace."""

    def called(f: Function, *args: Any) -> Any:
        return f(*args)

    return torch._dynamo.disable(called)


class _Pulls(threading.local):
    """How many pulls of this thread were recorded, for whoever differentiates them again."""

    tracked = 0


_pulls = _Pulls()


def _together(pull: Pull, cotangents: Sequence[Array | None]) -> Arrays:
    """The pullback of many cotangents at once, of which None stays None."""

    def pull_some(*given: Array) -> Arrays:
        rest = iter(given)
        return pull([None if ct is None else next(rest) for ct in cotangents])

    grads: Arrays = of_rows(pull_some, tuple([ct for ct in cotangents if ct is not None]))
    return grads


# Backward rules that torch 2.13 batches wrongly: off by 1.2 for a 4 x 6 point set.
BATCHED_WRONGLY = {"CdistBackward0"}

# What f does, by a part of what torch says of it inside of vmap.
REFUSED_IN_A_BATCH = {
    "data-dependent control flow": LOOKS,
    ".item() on a Tensor": LOOKS,
    "randomness": "draws random numbers. Draw them outside, with an axis of points, and pass them in",
}

# Functions whose backward pass has a wrong derivative in forward mode (torch 2.13), which were
# found by running through torch's own list of operations. Fused norms are formulas there.
FORWARD_WRONGLY = {
    *("ScatterReduceBackward0", "MaxUnpool2DBackward0", "MaxUnpool3DBackward0", "AsStridedScatterBackward0"),
    *("LogcumsumexpBackward0", "LinalgCholeskyExBackward0", "LinalgEighBackward0", "LinalgPinvBackward0"),
}


def _batches(pull: Pull) -> bool:
    """Whether rows of this tape may be pulled together."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return False
    known: bool | None = getattr(pull, "batches", None)
    if known is None:
        outputs = getattr(pull, "wrapped", None) if inside_functorch() else getattr(pull, "outputs", ())
        names = {node.name() for node in _between(getattr(pull, "inputs", ()), outputs or ())}
        known = outputs is not None and names.isdisjoint(BATCHED_WRONGLY)
        pull.batches = known  # type: ignore[attr-defined]
    return known


def _between(inputs: Arrays, outputs: Sequence[Array]) -> set[Any]:
    """The nodes of a tape. What stands behind its inputs is not run: in a loop all steps before this one."""
    return recorded(outputs, [x.grad_fn for x in inputs if x.grad_fn is not None])


def _tape(f: Function, xs: Arrays, has_aux: bool) -> Any:
    """f recorded on aliases of xs, so that other uses of xs, also inside f, do not count."""
    recording = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    before = _pulls.tracked
    if recording:
        out, aliases, own = _on_aliases(f, xs, True)
    else:
        with _recorded():
            out, aliases, own = _on_aliases(f, xs, False)
    nested = _pulls.tracked != before
    ys, aux = out if has_aux else (out, ())
    walked: set[Any] | None = set() if recording and own is aliases else None  # the nodes of the graph
    outer = recording and (walked is None or reaches_outside((*ys, *aux) if aux else ys, aliases, met=walked))
    whole = recording and not outer  # every path of the graph ends at an alias: none is cut
    for alias in own:
        alias.polyad_done = True  # f has returned: nobody outside can ask for its gradient any more
    moving = [*map(_tracked, ys)]

    def pull(cotangents: Sequence[Array | None], again: bool = True) -> Arrays:
        used, given, tracked = [], [], outer
        for y, moves, ct in zip(ys, moving, cotangents, strict=True):
            if moves and ct is not None:
                used.append(y)
                given.append(ct.clone() if ct.is_inference() else ct)
                tracked = tracked or ct.requires_grad
        if not used:
            return tuple(torch.zeros_like(x) for x in xs)
        create_graph = tracked and torch.is_grad_enabled()
        back = tuple(used), aliases, tuple(given), again or outer or create_graph, create_graph
        if not create_graph and not torch.is_inference_mode_enabled():
            grads = _backward(*back)
        else:
            nodes: Iterable[Any] = () if not create_graph else _between(aliases, used) if walked is None else walked
            normal = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
            with normal, refuse_again(nodes):
                grads = _backward(*back)
        if create_graph:
            _pulls.tracked += 1
            if nested:
                refuse_third_order(used, grads)
        for grad in grads:
            if grad is None:
                if not whole:
                    refuse_dead_ends(_between(aliases, used))
                return zeros_for_none(grads, xs)
        return grads

    # For those who ask what was recorded, and whether vmap goes through it, which is found once.
    pull.inputs, pull.outputs, pull.tracked = aliases, ys, outer  # type: ignore[attr-defined]
    pull.batches = None  # type: ignore[attr-defined]

    values = ys if outer else tuple(map(_release, ys))
    if not has_aux:
        return values, pull
    return values, pull, aux if outer else tuple(map(_release, aux))


def _on_aliases(f: Function, xs: Arrays, recording: bool) -> tuple[Any, Arrays, Arrays]:
    """(f of tensors that stand for xs, these tensors, those of them without a graph behind: the same tuple if all)."""
    if forward_ad._current_level < 0 and not any(map(_tracked, xs)):
        try:
            fresh = tuple([x.detach().requires_grad_() for x in xs])
        except RuntimeError:  # of a tensor that was made in inference mode
            pass
        else:
            return f(*fresh), fresh, fresh
    aliases = tuple([_alias(x, recording) for x in xs])
    own = tuple([alias.requires_grad_() for alias in aliases if not alias.requires_grad])
    if len(own) == len(xs):  # leaves, which torch lets nobody write to
        return f(*aliases), aliases, aliases
    versions = [alias._version for alias in aliases]
    out = f(*aliases)
    if versions != [alias._version for alias in aliases]:
        raise ImpureFunctionError(
            "f writes into its argument in place, which changes it for everybody: the derivative would be that of "
            "what comes after. Write y = 2 * x for x.mul_(2), y = x + 1 for x += 1"
        )
    return out, aliases, own


def _pushed(pull: Any, dxs: Sequence[Array | None]) -> Arrays:
    """The pushforward of what was recorded for the pullback, which is linear: the pullback of that map."""
    ys: Arrays = pull.outputs
    tracked = torch.is_grad_enabled() and (pull.tracked or any(dx is not None and dx.requires_grad for dx in dxs))
    with torch.enable_grad():
        zeros = tuple([torch.zeros_like(y).requires_grad_() for y in ys])
        grads = pull(zeros)
    for zero in zeros:
        zero.polyad_done = True  # as of aliases
    used = [(g, dx) for g, dx in zip(grads, dxs, strict=True) if dx is not None and g.requires_grad]
    if not used:
        return tuple(map(torch.zeros_like, zeros))
    some, directions = zip(*[(g, dx.clone() if dx.is_inference() else dx) for g, dx in used], strict=True)
    dys = _backward(some, zeros, directions, tracked, tracked)
    if all(dy is not None for dy in dys):
        return dys
    refuse_dead_ends(recorded(some))
    return zeros_for_none(dys, tuple(zero.detach() for zero in zeros))


def _backward(ys: Arrays, xs: Arrays, cotangents: Arrays, retain_graph: bool, create_graph: bool) -> Arrays:
    """torch.autograd.grad(ys, xs, cotangents, allow_unused=True)."""
    if torch._C._is_torch_function_mode_enabled():
        return torch.autograd.grad(ys, xs, cotangents, retain_graph, create_graph, allow_unused=True)
    # The engine itself, as every caller of torch.autograd.grad has it in the end: 22 of 48 us
    # for the gradient of sum(tanh(x)^2) of three numbers (torch 2.13, one CPU thread, 2026-11).
    engine = torch.autograd.Variable._execution_engine
    around, running.wanted = running.wanted, xs
    try:
        return engine.run_backward(ys, cotangents, retain_graph, create_graph, xs, True, accumulate_grad=False)
    finally:
        running.wanted = around


_tracked = attrgetter("requires_grad")


@contextmanager
def _recorded() -> Iterator[None]:
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _alias(x: Array, recording: bool) -> Array:
    if x.is_inference():
        return x.clone()
    return x.view_as(x) if recording and x.requires_grad else _release(x)


def _release(y: Array) -> Array:
    """y without its graph; detach() alone would also drop a tangent of forward mode."""
    if forward_ad._current_level < 0:
        return y.detach()
    primal, tangent = forward_ad.unpack_dual(y)
    return primal.detach() if tangent is None else forward_ad.make_dual(primal.detach(), tangent.detach())


def _moving(f: Function, xs: Arrays, dxs: Sequence[Array | None]) -> tuple[Function, tuple[Arrays, Arrays]]:
    """f of the arguments that have a tangent, these arguments, and the tangents."""
    moving = [i for i, dx in enumerate(dxs) if dx is not None] or list(range(len(xs)))
    tangents = tuple(torch.zeros_like(xs[i]) if dxs[i] is None else _written(dxs[i]) for i in moving)
    return by_formulas(of_some(f, xs, moving)), (tuple(_written(xs[i]) for i in moving), tangents)


def _same_dtypes(dys: Arrays, ys: Arrays) -> Arrays:
    """Tangents in the dtypes of their values: that of sin(s + 1.0) is float64 for a float32 number s (torch 2.13)."""
    return tuple(dy if dy.dtype == y.dtype else dy.to(y.dtype) for dy, y in zip(dys, ys, strict=True))


def _written(x: Array) -> Array:
    """x with every entry in memory and not of inference_mode(): forward mode refuses what expand() gives, and that."""
    return x.clone() if x.is_inference() or 0 in x.stride() else x
