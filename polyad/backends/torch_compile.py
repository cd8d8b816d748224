"""A function of torch as one graph of ATen functions, compiled by inductor.

torch.compile cannot look into autograd.grad(create_graph=True). Here f runs once on
fake tensors, which know their shapes and no values, and make_fx writes down every
function of ATen that is called, those of the backward passes inside of f included.
What f closes over stands in the graph as further inputs, so that a parameter that an
optimizer has moved, or that was replaced, has its new value.

If a result is to be differentiated, the graph is traced once more together with its
pullback, and cut into a forward and a backward part. It is never differentiated as it
stands: the backward passes in it use saved values as constants. A derivative of a
derivative, and whatever transformation runs around a call, takes f itself.

The first call of each program runs f as well and compares.
"""

import contextlib
import copy
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    UnsupportedFakeTensorException,
)
from torch.autograd import forward_ad
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from polyad.backends.base import Array, Arrays, Captured, Function
from polyad.backends.torch_graph import drawn
from polyad.backends.torch_namespace import TENSORS, inside_functorch, tracing
from polyad.backends.torch_replay import Surroundings, mapped
from polyad.errors import ArgumentError, ImpureFunctionError, PolyadWarning, UnsupportedError

__all__ = ["VALUE_ERRORS", "compiled"]

Program = Callable[..., Arrays]


class ValueAskedError(RuntimeError):
    """f asks for a value in a way for which torch has no error of its own."""


VALUE_ERRORS = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    GuardOnDataDependentSymNode,
    UnsupportedFakeTensorException,
    ValueAskedError,
)

_lock = threading.RLock()


def compiled(f: Function, captured: Captured) -> Function:
    """f, of whose arrays those that it closes over are further arguments."""
    programs: dict[Any, Program] = {}
    more = len(captured())

    def fast(*args: Array) -> Arrays:
        n = len(args) - more
        if _transformed(args):
            return f(*args[:n])
        where = _surroundings()
        program = programs.get(where)
        if program is not None:
            return program(*args)
        with _lock:
            if where not in programs:
                programs[where], ys = _first(_Function(f, n, captured), args)
                return ys
        return programs[where](*args)

    return fast


def _transformed(args: Arrays) -> bool:
    """Whether something runs around that wants to see every function: f itself is right then."""
    return bool(
        inside_functorch()
        or forward_ad._current_level >= 0
        or _watched()
        or torch._C._len_torch_dispatch_stack()
        or torch.compiler.is_compiling()
        or not TENSORS.issuperset(map(type, args))
        or not _STRIDED.issuperset(map(_layout, args))
    )


_STRIDED = frozenset((torch.strided,))
_layout = attrgetter("layout")


def _watched() -> bool:
    """Whether a TorchFunctionMode is around, but for that of torch.set_default_device."""
    return bool(torch._C._len_torch_function_stack()) and any(
        not isinstance(mode, DeviceContext) for mode in _get_current_function_mode_stack()
    )


def _surroundings() -> Any:
    """The settings that a trace depends on."""
    return (
        torch.is_grad_enabled() and not torch.is_inference_mode_enabled(),
        torch.get_default_dtype(),
        torch.get_default_device() if torch._C._len_torch_function_stack() else None,  # a mode sets another one
        torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu"),
        torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda"),
    )


def _first(function: "_Function", args: Arrays) -> tuple[Program, Arrays]:
    """The program, and what it gives for the first time; f instead, where that gives something else."""
    with torch.random.fork_rng():
        program = _program(function, args)
    versions = [x._version for x in args]
    with torch.random.fork_rng():
        expected = function.f(*args[: function.n])
    if versions != [x._version for x in args]:
        raise ImpureFunctionError(WRITES)
    found = program(*args)
    gap = _gap(found, expected)
    if not gap:
        return program, found
    text = f"compile: the compiled function gives {gap}. From here on f runs uncompiled"
    warnings.warn(text, PolyadWarning, stacklevel=6)
    return lambda *args: function.f(*args[: function.n]), expected


# Rounding of sums in another order, of results that may have lost half of their digits.
NEAR = {torch.float64: 1e-7, torch.complex128: 1e-7, torch.float32: 1e-2, torch.complex64: 1e-2}


def _gap(found: Arrays, expected: Arrays) -> str:
    """What is different by more than rounding; empty where nothing is."""
    finite = [y.detach()[y.isfinite()] for y in expected]
    sizes = [float(y.abs().max()) for y in finite if y.numel()]
    largest = max(sizes, default=0.0)
    for i, (y, z) in enumerate(zip(found, expected, strict=True)):
        if y.shape != z.shape or y.dtype != z.dtype or y.requires_grad != z.requires_grad:
            return f"a result number {i} of another shape, dtype or requires_grad than f"
        if not y.numel():
            continue
        if not (y.is_floating_point() or y.is_complex()):
            if not torch.equal(y, z):
                return f"another result number {i} than f"
            continue
        y, z = y.detach(), z.detach()
        here = z.isfinite()
        if not torch.equal(here, y.isfinite()):
            return f"NaN or infinite numbers in result number {i} where f gives others"
        if bool(here.any()):
            gap, size = float((y - z)[here].abs().max()), float(z[here].abs().max())
            if gap > NEAR.get(z.dtype, 0.2) * size + torch.finfo(z.dtype).eps * 1e3 * largest:
                return f"a result number {i} that is off by {gap:.1e}, of {size:.1e}, from that of f"
    return ""


# The program.


def _program(function: "_Function", args: Arrays) -> Program:
    differentiable: list[bool] = []

    def noting(*given: Array) -> Arrays:
        ys = function(*given)
        differentiable[:] = [y.requires_grad for y in ys]
        return ys

    traced = _Traced(noting, args)
    if not any(differentiable):
        return traced.lowered()
    return _Differentiable(function, args, traced, differentiable)


class _Function:
    """f of n arrays, as a function of the arrays that it closes over too."""

    def __init__(self, f: Function, n: int, captured: Captured) -> None:
        self.f, self.n, self.captured = f, n, captured

    def __call__(self, *given: Array) -> Arrays:
        now = self.captured()
        if now is None:
            raise ImpureFunctionError(OTHERS)
        standing = {id(x): y for x, y in zip(now, given[self.n :], strict=True)}
        with _StandIns(standing):
            ys: Arrays = self.f(*given[: self.n])
        if any(x.is_leaf and x.grad is not None for x in given):
            raise ImpureFunctionError(
                "compile: f calls backward(), which writes to .grad of an array outside of it. Return gradients "
                "(polyad.value_and_gradient), and assign them outside"
            )
        return tuple(standing.get(id(y), y) for y in ys)

    def pulled(
        self, given: Arrays, cotangents: Sequence[Array | None], differentiable: list[bool], again: bool
    ) -> tuple[Arrays, Arrays]:
        """(ys, the cotangents of those given that require a gradient), None where there is none.

        again  whether they are differentiated themselves
        """
        with torch.enable_grad():
            aliases = tuple(x.view_as(x) for x in given)  # one of them may be a function of another
            ys = self(*aliases)
            used = [(y, ct) for y, ct, one in zip(ys, cotangents, differentiable, strict=True) if one]
            wanted = [x for x in aliases if x.requires_grad]
            grads = torch.autograd.grad(
                [y for y, ct in used if ct is not None],
                wanted,
                [ct for _, ct in used if ct is not None],
                create_graph=again,
                allow_unused=True,
            )
        return ys, grads


class _StandIns(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
    """Puts inputs of the graph in the place of the tensors that f closes over."""

    def __init__(self, standing: dict[int, Array]) -> None:
        super().__init__()
        self.standing, self.tracing = standing, tracing()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*mapped(self._moved, args), **mapped(self._moved, kwargs or {}))

    def _moved(self, x: Array) -> Array:
        found = self.standing.get(id(x))
        if found is not None:
            return found
        if self.tracing and _is_real(x) and x.requires_grad:
            raise UnsupportedError(HIDDEN.format(tuple(x.shape)))
        return x


def _is_real(x: Array) -> bool:
    """Whether it was there before the trace."""
    return not isinstance(x, FakeTensor) and not torch._C._functorch.is_functorch_wrapped_tensor(x)


HIDDEN = (
    "compile: f uses a tensor of shape {} that requires a gradient and cannot be found from f: it lies in a module of "
    "another package, in a class, or too deep. Pass it as an argument"
)
OTHERS = (
    "compile: what f closes over is not what it was when f was called, and a derivative of a derivative needs f again. "
    "Take it before that changes, or compile the inner derivative: polyad.compile(polyad.value_and_gradient(f))"
)
WRITES = (
    "compile: f writes into one of its arguments, or into an array that it closes over. Return the new array, and "
    "assign it outside"
)


class _Traced:
    """The graph of a function. Its inputs are the arguments, and then the constants that it uses."""

    def __init__(self, function: Function, args: Arrays) -> None:
        self.examples = tuple(x.detach().requires_grad_(x.requires_grad) for x in args)
        fakes = FakeTensorMode(allow_non_fake_inputs=True)  # without symbols: who asks for a value is refused there
        try:
            with fakes, _silent():
                self.graph = make_fx(function)(*map(fakes.from_tensor, self.examples))
        except RuntimeError as error:
            if ".numpy() is not supported" in str(error):
                raise ValueAskedError(str(error)).with_traceback(error.__traceback__) from error
            raise
        _refuse_writes(self.graph)
        self.constants = _lifted(self.graph)
        if any(True for node in self.graph.graph.nodes for _ in _written(node)):
            self.graph = _functional(self.graph, (*self.examples, *self.constants))

    @property
    def draws(self) -> bool:
        """Whether it has random numbers in it."""
        return drawn(self.graph.graph.nodes)

    def lowered(self) -> Program:
        """The compiled graph, as a function of the arguments."""
        program, constants = lowered(self.graph, (*self.examples, *self.constants)), self.constants

        def run(*args: Array) -> Arrays:
            with torch.no_grad():
                return tuple(program(*args, *constants))

        def of_constants(*args: Array) -> Arrays:
            return tuple(program(*args, *constants))

        return run if any(x.requires_grad for x in self.examples) else of_constants


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """A block in which a function of fake tensors that fails raises, and does not print as well: f may catch it."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _functional(graph: GraphModule, args: Arrays) -> GraphModule:
    """The graph without functions that write, some of which fake tensors let pass and others refuse."""
    function = torch.func.functionalize(graph, remove="mutations")
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), fakes:
        pure: GraphModule = make_fx(function)(*(fakes.from_tensor(x.detach()) for x in args))
    return pure


def _refuse_writes(graph: GraphModule) -> None:
    for node in graph.graph.nodes:
        if any(isinstance(size, torch.SymInt) for size in getattr(node.meta.get("val"), "shape", ())) or isinstance(
            node.meta.get("val"), torch.SymInt | torch.SymFloat | torch.SymBool
        ):
            raise ValueAskedError("a shape or number that depends on values")
        if any(_root(x).op in ("placeholder", "get_attr") for x in _written(node)):
            raise ImpureFunctionError(WRITES)


def _written(node: Node) -> Iterator[Node]:
    """What this node writes to."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None:
        return
    if node.target in TRAINING and node.args[5] and isinstance(node.args[3], Node):
        yield node.args[3]
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
            yield from (x for x in (given if isinstance(given, list | tuple) else [given]) if isinstance(x, Node))


# These write to running statistics, and their schemas do not say so.
TRAINING = (
    torch.ops.aten.native_batch_norm.default,
    torch.ops.aten.cudnn_batch_norm.default,
    torch.ops.aten.miopen_batch_norm.default,
)


def _root(node: Node) -> Node:
    """What this is a view of."""
    while node.op == "call_function" and getattr(node.target, "_schema", None) is not None:
        base = next(
            (x for x, a in zip(node.args, node.target._schema.arguments, strict=False) if a.alias_info is not None),
            None,
        )
        if not isinstance(base, Node):
            break
        node = base
    return node


def _lifted(graph: GraphModule) -> Arrays:
    """The tensors that stand in the graph, which become inputs: inductor would take them for constants for good."""
    nodes = graph.graph
    constants: list[Array] = []
    last = [node for node in nodes.nodes if node.op == "placeholder"]
    found: dict[str, Node] = {}
    for node in [node for node in nodes.nodes if node.op == "get_attr"]:
        value = getattr(graph, node.target)
        if not isinstance(value, torch.Tensor):
            continue
        if value.requires_grad:
            raise UnsupportedError(HIDDEN.format(tuple(value.shape)))
        if node.target not in found:
            with nodes.inserting_after((last or [next(iter(nodes.nodes)).prev])[-1]):
                found[node.target] = nodes.placeholder(f"constant_{len(constants)}")
            found[node.target].meta = dict(node.meta)
            last.append(found[node.target])
            constants.append(value)
        node.replace_all_uses_with(found[node.target])
        nodes.erase_node(node)
    for node in nodes.nodes:
        if node.target is torch.ops.aten._efficientzerotensor.default:
            node.target = torch.ops.aten.zeros.default  # which has memory: inductor reads it
    for node in reversed(list(nodes.nodes)):
        if node.op == "call_function" and not node.users and not any(True for _ in _written(node)):
            nodes.erase_node(node)
    graph.recompile()
    return tuple(constants)


# What a graph becomes.


def lowered(graph: GraphModule, args: Arrays) -> Callable[..., Sequence[Array]]:
    """The graph, compiled for arguments like these; as it is where inductor does not compile it."""
    if asked("POLYAD_TORCH_COMPILER", "inductor", "graph") == "graph":
        return graph
    from torch._inductor import compile as inductor

    own = GraphModule(graph, copy.deepcopy(graph.graph))
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program: Callable[..., Sequence[Array]] = inductor(
                own, [x.detach() for x in args], {"fallback_random": True}
            )
        return program
    except Exception as error:  # a compiler that is not there, or a function that it does not know
        _say_once(error)
        return graph


def asked(variable: str, *known: str) -> str:
    """What an environment variable says, or the first of these; ArgumentError for anything else."""
    name = os.environ.get(variable) or known[0]
    if name not in known:
        raise ArgumentError(f"{variable}: there is no {name!r}; choose one of {', '.join(map(repr, known))}")
    return name


_said: set[str] = set()


def _say_once(error: Exception) -> None:
    why = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    if why in _said:
        return
    _said.add(why)
    warnings.warn(
        f"compile: inductor does not compile this ({why}). Its graph runs function by function, which saves less. "
        f"On a CPU inductor needs a C++ compiler: apt install g++, or CXX=/path/to/it",
        PolyadWarning,
        stacklevel=9,
    )


# Results that carry a graph.


class _Differentiable:
    """A program whose results carry a graph.

    Until a gradient is asked for it is a forward program alone, and the first pullback
    runs its graph function by function. Later calls are two programs, forward and backward.
    Where random numbers are drawn each pullback is such a run, with the numbers of its call:
    what cuts a graph in two would draw others.
    """

    def __init__(self, function: _Function, args: Arrays, traced: _Traced, differentiable: list[bool]) -> None:
        self.function, self.differentiable = function, differentiable
        self.count = len(differentiable)
        self.present: list[int] = []  # places of the arguments that have a gradient
        self.joint = self._joint(args, traced)
        self.draws = self.joint.draws
        self.pair: _Pair | None = None
        self.forward = traced.lowered()
        self.asked = False

    def _joint(self, args: Arrays, traced: _Traced) -> _Traced:
        n = len(args)
        wanted = [i for i, x in enumerate(args) if x.requires_grad]

        def joint(*given: Array) -> Arrays:
            rest = iter(given[n:])
            cotangents = [next(rest) if one else None for one in self.differentiable]
            ys, grads = self.function.pulled(given[:n], cotangents, self.differentiable, again=False)
            self.present = [i for i, grad in zip(wanted, grads, strict=True) if grad is not None]
            return (*ys, *(grad for grad in grads if grad is not None))

        output = next(node for node in traced.graph.graph.nodes if node.op == "output")
        values = [node.meta["val"] for node in output.args[0]]
        cotangents = tuple(
            torch.zeros(tuple(y.shape), dtype=y.dtype, device=y.device)
            for y, one in zip(values, self.differentiable, strict=True)
            if one
        )
        return _Traced(joint, (*args, *cotangents))

    def __call__(self, *args: Array) -> Arrays:
        if self.asked and self.pair is None and not self.draws:
            with _lock:
                self.pair = self.pair or _Pair(self)
        ys: Arrays = _Compiled.apply(self, list(args[self.function.n :]), *args)
        return ys

    def pullback(self, args: Arrays, cotangents: Arrays) -> Arrays:
        """The gradients that there are, function by function."""
        self.asked = True
        with torch.no_grad():
            return tuple(self.joint.graph(*args, *cotangents, *self.joint.constants))[self.count :]


class _Pair:
    """A forward and a backward program, cut out of the joint graph."""

    def __init__(self, of: _Differentiable) -> None:
        joint, n = of.joint, len(of.joint.examples) - sum(of.differentiable)
        graph = GraphModule(joint.graph, copy.deepcopy(joint.graph.graph))
        for i, node in enumerate([node for node in graph.graph.nodes if node.op == "placeholder"]):
            name = f"tangents_{i}" if n <= i < len(joint.examples) else f"primals_{i}"
            node.target = name
            node._rename(name)
        graph.recompile()
        forward, backward = min_cut_rematerialization_partition(graph, (), num_fwd_outputs=of.count)
        self.constants = joint.constants
        primals = (*joint.examples[:n], *joint.constants)
        self.forward = lowered(forward, primals)
        with torch.no_grad():
            saved = forward(*(x.detach() for x in primals))[of.count :]
        self.backward = lowered(backward, (*saved, *joint.examples[n:]))


def _full(program: _Differentiable, cotangents: Sequence[Array | None]) -> Arrays:
    """Cotangents of the results that carry a graph, as the joint graph takes them."""
    examples = iter(program.joint.examples[len(program.joint.examples) - sum(program.differentiable) :])
    given = [ct for ct, one in zip(cotangents, program.differentiable, strict=True) if one]
    return tuple(
        torch.zeros_like(example) if ct is None else ct.contiguous()
        for ct, example in zip(given, examples, strict=True)
    )


def _by_f(program: _Differentiable, captured: list[Array], args: Arrays, cotangents: Any) -> tuple[list[int], Arrays]:
    """(places, gradients) that are differentiable themselves, by f itself."""
    now = program.function.captured()
    if now is None or any(x is not y for x, y in zip(now, captured, strict=True)):
        raise ImpureFunctionError(OTHERS)
    _, grads = program.function.pulled(args, cotangents, program.differentiable, again=True)
    return [i for i, x in enumerate(args) if x.requires_grad], grads


class _Compiled(torch.autograd.Function):  # type: ignore[misc]
    """The results of a program, as functions of its arguments."""

    @staticmethod
    def forward(ctx: Any, program: _Differentiable, captured: list[Array], *args: Array) -> Arrays:
        ctx.set_materialize_grads(False)
        ctx.program, ctx.captured, ctx.pair, ctx.n = program, captured, program.pair, len(args)
        ctx.again = Surroundings(args).again if program.draws else contextlib.nullcontext
        saved: Arrays = ()
        if ctx.pair is None:
            ys = program.forward(*args)
        else:
            found = tuple(ctx.pair.forward(*args, *ctx.pair.constants))
            ys, saved = found[: program.count], found[program.count :]
        ctx.save_for_backward(*args, *saved)
        ctx.mark_non_differentiable(*(y for y, one in zip(ys, program.differentiable, strict=True) if not one))
        return ys

    @staticmethod
    def backward(ctx: Any, *cotangents: Array | None) -> Any:
        program: _Differentiable = ctx.program
        args, saved = ctx.saved_tensors[: ctx.n], ctx.saved_tensors[ctx.n :]
        if torch.is_grad_enabled():
            with ctx.again():
                wanted, grads = _by_f(program, ctx.captured, args, cotangents)
        else:
            cotangents = _full(program, cotangents)
            wanted = program.present
            if ctx.pair is None:
                with ctx.again():
                    grads = program.pullback(args, cotangents)
            else:
                grads = tuple(ctx.pair.backward(*saved, *cotangents))
        by_place = dict(zip(wanted, grads, strict=True))
        return (None, None, *(by_place.get(i) for i in range(ctx.n)))
