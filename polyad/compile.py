"""compile: a function as one program of its framework."""

import contextlib
import functools
import itertools
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyad import trees
from polyad.arrays import single_owner
from polyad.backends import Scope, carried, compiling, current, get, is_array, is_host, owner, use_backend
from polyad.backends.base import Arrays, Backend
from polyad.captures import captured_arrays, declared_arrays, flattened
from polyad.environment import PLAIN, Environment, Same, plain
from polyad.errors import ArgumentError, MixedArraysError, PolyadWarning, UnsupportedError
from polyad.nested import policy

__all__ = ["compile"]

# So many programs of one function for one shape are a habit, which is slower than no compiler.
MANY = 8


def compile(f: Callable[..., Any] | None = None, *, backend: str | Backend | None = None) -> Any:
    """f, made faster for repeated calls: jax.jit on JAX, one graph through inductor on torch, f itself elsewhere.

    f        of pytrees; inner derivatives of polyad are a part of the program. As a
             decorator too, with or without backend=
    backend  None: that of the arguments, else of what f captures, else that around the call
    returns  a function with the results of f. Arrays among the arguments, and those that
             f closes over, are inputs of the program; numbers, texts and None are part
             of it: others are compiled for anew, as are other shapes and dtypes
    raises   UnsupportedError where f looks at the value of an array, ImpureFunctionError
             where it changes something outside, MixedArraysError, LeafError

        step = polyad.compile(polyad.value_and_gradient(loss))
    """
    if f is None:
        return functools.partial(compile, backend=backend)
    if not callable(f):
        raise ArgumentError(f"compile: the first argument is {f!r}, not a function. Type polyad.compile(f)")
    return functools.update_wrapper(Compiled(f, backend), f, updated=())


class Compiled:
    """A function, and the programs that were made of it."""

    def __init__(self, f: Callable[..., Any], backend: str | Backend | None) -> None:
        self.f, self.asked = f, backend
        self._environments: dict[Any, Environment] = {}
        self._programs: dict[Any, _Program] = {}
        self._numbers: dict[Any, int] = {}
        self._declares = hasattr(type(getattr(f, "__self__", f)), "declared_arrays")
        self._made: dict[Any, int] = {}
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, specs = [], []
        for arg in (*args, kwargs) if kwargs else args:
            some, spec = flattened(arg)
            leaves += some
            specs.append(spec)
        owners = [owner(leaf) for leaf in leaves]
        backend = self._backend(leaves, owners)
        if not backend.compiles:
            with use_backend(backend):
                return self.f(*args, **kwargs)
        xs, places, static, objects = leaves, [*range(len(leaves))], [], []
        if None in owners:
            xs, places = [], []
            for i, leaf in enumerate(leaves):
                if owners[i] is not None or is_host(leaf):
                    xs.append(leaf if owners[i] is not None else backend.asarray(leaf))
                    places.append(i)
                elif type(leaf) in PLAIN:
                    static.append(plain(leaf))
                else:
                    static.append(Same(leaf))
                    objects.append(leaf)
        environment, arrays = self._environment(tuple(objects), backend)
        shapes = tuple(map(backend.signature, (*xs, *arrays)))
        key = tuple(specs), len(args), tuple(places), tuple(static), shapes, environment.number, policy(), backend
        program = self._programs.get(key)
        if program is None:
            program = self._program(key, leaves, environment)
        program.environment = environment  # one with the same key, whose containers may be other ones
        return program(xs, arrays)

    def _backend(self, leaves: list[Any], owners: list[Backend | None]) -> Backend:
        some = {backend for backend in owners if backend is not None}
        found = some.pop() if len(some) == 1 and not self._declares else self._found(leaves)
        if self.asked is not None:
            backend = carried(get(self.asked))
            if found is not None and found is not backend and found.name not in backend.wraps:
                raise MixedArraysError(
                    f"compile: backend={backend.name!r}, but an argument is an array of {found.name}. "
                    f"Convert the arguments: polyad.convert(x, {backend.name!r})"
                )
            return backend
        return carried(found or current())

    def _found(self, leaves: list[Any]) -> Backend | None:
        """Whose arrays there are among arguments and parameters, else among what f captures."""
        try:
            found = single_owner([*leaves, *declared_arrays(self.f)])
        except MixedArraysError:
            names = sorted({backend.name for leaf in leaves if (backend := owner(leaf)) is not None})
            raise MixedArraysError(
                f"compile: arguments, or parameters that f carries, are arrays of {' and '.join(names)}. "
                f"Convert them: polyad.convert(x, {names[0]!r})"
            ) from None
        if found is None and self.asked is None:
            with contextlib.suppress(MixedArraysError):  # f need not use all of it
                found = single_owner(captured_arrays(self.f))
        return found

    def _environment(self, objects: tuple[Any, ...], backend: Backend) -> tuple[Environment, Arrays]:
        """(what f and the objects read, the arrays among that)."""
        roots = (*[Same(x) for x in objects], backend)
        known = self._environments.get(roots)
        arrays = known.arrays() if known is not None else None
        if known is None or arrays is None:
            known = self._environments[roots] = Environment((self.f, *objects), backend)
            known.number = self._numbers.setdefault(known.key, len(self._numbers))
            arrays = tuple([slot.value for slot in known.moving])
        return known, arrays

    def _program(self, key: Any, leaves: list[Any], environment: Environment) -> "_Program":
        with self._lock:
            if key not in self._programs:
                self._count(key)
                self._programs[key] = _Program(self, key, leaves, environment)
            return self._programs[key]

    def _count(self, key: Any) -> None:
        same = (key[0], key[4])
        self._made[same] = self._made.get(same, 0) + 1
        if self._made[same] == MANY:
            warnings.warn(
                f"compile: {_name(self.f)} was compiled {MANY} times for the same shapes, because a number among its "
                f"arguments, or something else that it reads outside, is another one each time. Pass what changes as "
                f"an array: xp.asarray(value)",
                PolyadWarning,
                stacklevel=4,
            )


class _Program:
    """f for one structure, shapes and constants: a program of arrays, and the tree that it gives."""

    def __init__(self, of: Compiled, key: Any, leaves: list[Any], environment: Environment) -> None:
        self.f, self.backend, self.environment, self.scope = of.f, key[-1], environment, Scope()
        self.specs, self.n, self.places = key[:3]
        self.leaves = [None if i in self.places else leaf for i, leaf in enumerate(leaves)]
        self.fast = self.backend.compile(self.flat, lambda: self.environment.arrays())

    def __call__(self, xs: list[Any], arrays: Arrays) -> Any:
        try:
            ys = self.fast(*xs, *arrays)
        except self.backend.value_errors as error:
            raise UnsupportedError(_looked(self.f, error)) from error
        if len(ys) < len(self.outputs):
            rest = iter(ys)
            ys = [next(rest) if leaf is None else leaf[0] for leaf in self.outputs]
        return trees.unflatten(self.out_spec, ys)

    def flat(self, *xs: Any) -> Arrays:
        """f on arrays; what it returns besides arrays is kept here."""
        leaves = list(self.leaves)
        for i, x in zip(self.places, xs, strict=True):
            leaves[i] = x
        rest = iter(leaves)
        args = [trees.unflatten(spec, [*itertools.islice(rest, spec.num_leaves)]) for spec in self.specs]
        kwargs = args.pop() if len(args) > self.n else {}
        before = self.environment.arrays()
        try:
            with use_backend(self.backend), compiling(self.scope):
                out, self.out_spec = trees.flatten(self.f(*args, **kwargs))
        finally:
            if before is not None:
                self.environment.refuse_changes(before)
        out = [_adopted(y, self.backend) if is_array(y) else y for y in out]
        self.outputs = [None if is_array(y) else (y,) for y in out]
        return tuple(y for y in out if is_array(y))


def _adopted(x: Any, backend: Backend) -> Any:
    return backend.asarray(x) if is_host(x) and not backend.host else x


def _name(f: Any) -> str:
    return getattr(f, "__name__", type(f).__name__)


def _of_library(file: str) -> bool:
    return "site-packages" in file or "dist-packages" in file or Path(file).is_relative_to(Path(__file__).parent)


def _looked(f: Any, error: BaseException) -> str:
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _of_library(frame.filename)]
    where = f" in line {frames[-1].lineno} of {Path(frames[-1].filename).name}: `{frames[-1].line}`" if frames else ""
    return (
        f"compile: {_name(f)} looks at the value of an array{where}. Compiled, it would do for all values what it did "
        f"for these. Write xp.where(condition, a, b), return the array and look at it outside, pass a Python number "
        f"where it is one, or leave {_name(f)} uncompiled"
    )
