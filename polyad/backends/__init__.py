"""Which backends there are, whose array this is, and which one runs a call.

No framework is imported here. An adapter is loaded when its name is asked for,
or when an array turns up whose framework has been imported already.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from polyad.errors import BackendNotInstalledError, UnknownBackendError

if TYPE_CHECKING:  # base.py stands above arrays.py, and that above this file
    from polyad.backends.base import Backend

__all__ = [
    "BackendInfo",
    "Evaluation",
    "Scope",
    "backends",
    "carried",
    "compiling",
    "current",
    "depth",
    "evaluates",
    "get",
    "is_array",
    "is_host",
    "jet_levels",
    "owner",
    "register_backend",
    "running_jets",
    "set_backend",
    "use_backend",
    "ways",
]


@dataclass(frozen=True)
class _Entry:
    """Where an adapter is, the framework it needs, and how a person gets that.

    requires     packages whose arrays may be its own, beside that framework
    accelerator  whether it runs on an accelerator alone
    """

    path: str
    module: str
    install: str
    version: str | None = None
    requires: tuple[str, ...] = ()
    accelerator: bool = False

    @property
    def may_own(self) -> bool:
        """Whether there can be an array of it: one of a framework that was never imported cannot exist."""
        return any(name in sys.modules for name in (self.module, *self.requires))


_entries = {
    "numpy": _Entry("polyad.backends.numpy:NumPy", "numpy", "pip install numpy"),
    "autograd": _Entry("polyad.backends.autograd:Autograd", "autograd", 'pip install "polyad[autograd]"'),
    "jax": _Entry("polyad.backends.jax:Jax", "jax", 'pip install "polyad[jax]"'),
    "torch": _Entry("polyad.backends.torch:Torch", "torch", 'pip install "polyad[torch]"'),
    "cupy": _Entry("polyad.backends.cupy:CuPy", "cupy", 'pip install "polyad[cupy]"', accelerator=True),
}
_OWN = frozenset(_entries)
_HOST = (np.ndarray, np.generic)
_loaded: dict[str, Backend] = {}
_owners: dict[type, Backend | None] = {}
ways: dict[tuple[Any, ...], Any] = {}
"""What a function of `xp` means for arguments of these types: (its name, *types)."""
_lock = threading.RLock()


@dataclass(frozen=True)
class BackendInfo:
    """One line of `backends()`; accelerator is whether it runs on an accelerator alone."""

    name: str
    installed: bool
    version: str | None
    install: str
    accelerator: bool = False


def backends() -> tuple[BackendInfo, ...]:
    """Every backend that polyad knows, installed or not. Imports no framework."""
    return tuple(_info(name, entry) for name, entry in _all_entries().items())


def register_backend(name: str, adapter: str | type[Backend] | Backend, *, module: str = "", install: str = "") -> None:
    """Make an adapter known under a name.

    adapter  the Backend class or an instance, or where the class is: "theirs.adapter:Theirs"
    module   the framework it needs, imported before the adapter is
    install  what a person types to get that framework

    Packages do the same with an entry point of the group `polyad.backends`. Of
    several adapters that own an array, the one that was registered last has it,
    then those of packages, then polyad's own.
    """
    with _lock:
        _entries.pop(name, None)
        if isinstance(adapter, str):
            _entries[name] = _Entry(adapter, module or adapter.split(":")[0], install or f"pip install {module}")
            _loaded.pop(name, None)
        else:
            kind = adapter if isinstance(adapter, type) else type(adapter)
            _entries[name] = _Entry(f"{kind.__module__}:{kind.__qualname__}", kind.__module__, install)
            _loaded[name] = adapter() if isinstance(adapter, type) else adapter
        _owners.clear()
        ways.clear()


def get(name: str | Backend) -> Backend:
    """The adapter of this name, loaded. UnknownBackendError, BackendNotInstalledError."""
    if not isinstance(name, str):
        if hasattr(name, "pushforward"):
            return name
        raise UnknownBackendError(f"a backend is given by its name or its adapter, not {name!r}. Type backend='torch'")
    adapter = _loaded.get(name)
    if adapter is None:
        with _lock:
            adapter = _loaded.get(name) or _loaded.setdefault(name, _load(name))
    return adapter


def is_host(x: Any) -> bool:
    """Whether x is data that no framework claims: an ndarray or a number of NumPy."""
    return isinstance(x, _HOST)


def is_array(x: Any) -> bool:
    """Whether x is an array of any backend, ndarrays included."""
    return owner(x) is not None or is_host(x)


def owner(x: Any) -> Backend | None:
    """The backend that x belongs to; None for ndarrays and for what is no array."""
    kind = type(x)
    try:
        return _owners[kind]
    except KeyError:
        host = is_host(x)
        found = None if host else _find_owner(x)
        if found is not None:
            found = found.of(x)
        if found is not None or host or not _may_be_claimed_later(kind):
            _owners[kind] = found
        return found


class Evaluation:
    """One evaluation of the function of a polyad call, inside of that of the call around it: a `with` block.

    known           what the call has read, which later evaluations of its function read too:
                    a strategy may evaluate it again when the caller has gone on
    mapped          where the call was made that maps the function over points; None for one that differentiates it
    around          the evaluation around this one
    differentiates  whether this call does that, or one around it
    """

    __slots__ = ("_tokens", "around", "backend", "differentiates", "known", "mapped")
    differentiates: bool

    def __init__(self, backend: Backend, known: dict[int, Any], mapped: Scope | None = None) -> None:
        around = _evaluation.get()
        self.backend, self.known, self.mapped, self.around = backend, known, mapped, around
        self.differentiates = mapped is None or (around is not None and around.differentiates)

    def __enter__(self) -> Backend:
        self._tokens = _running.set(self.backend), _evaluation.set(self)
        return self.backend

    def __exit__(self, *error: object) -> None:
        backend, evaluation = self._tokens
        _running.reset(backend)
        _evaluation.reset(evaluation)


def _outside(evaluation: Evaluation | None) -> Evaluation | None:
    """The innermost evaluation around this one, or itself, that is none of a point of many."""
    while evaluation is not None and evaluation.mapped is not None:
        evaluation = evaluation.around
    return evaluation


# The innermost polyad call or `use_backend` block, then the process-wide default.
_running: ContextVar[Backend | None] = ContextVar("polyad_backend", default=None)
_evaluation: ContextVar[Evaluation | None] = ContextVar("polyad_evaluation", default=None)
_jets: ContextVar[tuple[tuple[Any, Backend | None], ...]] = ContextVar("polyad_jets", default=())
_compiled: ContextVar[Scope | None] = ContextVar("polyad_compiled", default=None)
_default: str | Backend | None = None


def current() -> Backend:
    """The backend of the polyad call or `use_backend` block around, else the default."""
    return _running.get() or get(_default or os.environ.get("POLYAD_BACKEND") or "numpy")


def set_backend(name: str | Backend) -> None:
    """Make this the default of the process, for all threads.

    raises  UnknownBackendError, BackendNotInstalledError; the default then stays
    """
    global _default
    _default = get(name)


@contextmanager
def use_backend(name: str | Backend) -> Iterator[None]:
    """The default inside a `with` block, in this thread and its tasks only."""
    token = _running.set(get(name))
    try:
        yield
    finally:
        _running.reset(token)


def evaluates() -> bool:
    """Whether this is inside of a function that a polyad call differentiates."""
    evaluation = _evaluation.get()
    return evaluation is not None and evaluation.differentiates


def depth() -> int:
    """How many functions that polyad calls differentiate this is inside of."""
    evaluation, found = _outside(_evaluation.get()), 0
    while evaluation is not None:
        evaluation, found = _outside(evaluation.around), found + 1
    return found


@contextmanager
def running_jets(level: Any, backend: Backend | None) -> Iterator[None]:
    """What a pass of jets does around the function that it differentiates; backend is theirs."""
    token = _jets.set((*_jets.get(), (level, backend)))
    try:
        yield
    finally:
        _jets.reset(token)


def carried(backend: Backend) -> Backend:
    """The adapter of jets over this backend, inside of a function that such jets go through.

    There any array may turn out to be a jet, what a function captures or
    computes included, so that the framework alone would not do.
    """
    passes = _jets.get()
    if not passes:
        return backend
    return next((jets for _, jets in passes if jets is not None and jets.over is backend), backend)


def jet_levels(backend: Backend) -> list[Any]:
    """Levels of the passes of these jets that run around this place, rising."""
    return [level for level, jets in _jets.get() if jets is backend]


@contextmanager
def compiling(scope: Scope) -> Iterator[None]:
    """What `polyad.compile` does around a function while it is compiled; scope is where it is called."""
    token = _compiled.set(scope)
    try:
        yield
    finally:
        _compiled.reset(token)


class Scope:
    """Where code runs: an evaluation of polyad, inside a transformation of each framework."""

    def __init__(self) -> None:
        self.evaluation = _evaluation.get()
        self.transformations: dict[str, Any] = {}
        for name, backend in tuple(_loaded.items()):
            if backend.transforms:
                self.transformations[name] = backend.scope()

    def is_here(self) -> bool:
        """Whether this code runs in the same place still.

        A framework that was loaded meanwhile had no transformation running that an array of
        the other ones could have come from; one that shares ndarrays with them has one if one runs now.
        """
        if self.evaluation is not _evaluation.get():
            return False
        known = self.transformations
        return all(
            backend.scope() == known[name] if name in known else not (backend.host and backend.scope())
            for name, backend in tuple(_loaded.items())
        )

    def is_lost(self) -> bool:
        """Whether code that would run in the same place still runs while it is compiled, and not when it is called."""
        entered = _compiled.get()
        return (
            entered is not None
            and self.evaluation is entered.evaluation is _outside(_evaluation.get())
            and self.transformations.items() <= entered.transformations.items()
        )

    def is_mapped(self) -> bool:
        """Whether this code runs for each of many points, which are mapped over in the same place."""
        evaluation: Evaluation | None = _evaluation.get()
        entered: Scope | None = None
        while evaluation is not None and evaluation is not self.evaluation and evaluation.mapped is not None:
            entered = evaluation.mapped
            evaluation = evaluation.around
        return (
            entered is not None
            and evaluation is self.evaluation
            and self.transformations.items() <= entered.transformations.items()
        )

    def read(self, holder: Any, now: Any) -> Any:
        """What the holder, made in this place, has now; or what it had when the call that runs here first read it."""
        evaluation, frames = _evaluation.get(), []
        while evaluation is not None and evaluation is not self.evaluation:
            if id(holder) in evaluation.known:
                return evaluation.known[id(holder)][1]
            frames.append(evaluation)
            evaluation = evaluation.around
        for frame in frames:
            frame.known[id(holder)] = (holder, now)  # which keeps it alive, so that its id stays its own
        return now


@cache
def _plugins() -> dict[str, _Entry]:
    """Backends of other packages; an own name wins."""
    return {point.name: _plugin(point) for point in importlib.metadata.entry_points(group="polyad.backends")}


def _plugin(point: importlib.metadata.EntryPoint) -> _Entry:
    package = point.dist
    if package is None:
        return _Entry(point.value, point.module, "")
    names = (re.match(r"[\w.-]+", line) for line in package.requires or () if "extra ==" not in line)
    requires = {name.group().lower().replace("-", "_") for name in names if name} - {"numpy", "polyad"}
    install = f"pip install {package.name}"
    return _Entry(point.value, point.module, install, package.version, tuple(sorted(requires)))


def _all_entries() -> dict[str, _Entry]:
    """By name: polyad's own, those of packages, those that were registered, the last one last."""
    plugins = {name: entry for name, entry in _plugins().items() if name not in _entries}
    own = {name: entry for name, entry in _entries.items() if name in _OWN}
    return {**own, **plugins, **_entries}


def _load(name: str) -> Backend:
    entry = _all_entries().get(name) if isinstance(name, str) else None
    if entry is None:
        raise UnknownBackendError(_unknown(name))
    try:
        importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != entry.module.split(".")[0]:
            raise  # the framework is there and something that it needs is not
        raise BackendNotInstalledError(
            f"backend {name!r} needs the package {entry.module!r}, which is not installed here. Type: {entry.install}"
        ) from error
    module, _, attribute = entry.path.partition(":")
    adapter: type[Backend] = getattr(importlib.import_module(module), attribute)
    return adapter()


def _unknown(name: Any) -> str:
    known = sorted(_all_entries())
    close = get_close_matches(str(name), known, 1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"there is no backend {name!r}.{hint} Known are: {', '.join(known)}. Others: polyad.register_backend"


def _info(name: str, entry: _Entry) -> BackendInfo:
    package = entry.module.split(".")[0]
    version = entry.version
    if version is None:
        with suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(package)
    there = version is not None or _is_module(package)
    version = _version(package) if there and version is None else version
    return BackendInfo(name, there, version, entry.install, entry.accelerator)


def _version(package: str) -> str | None:
    """That of a package which is installed under another name, as CuPy is; None where nothing says it."""
    if package in sys.modules:
        return getattr(sys.modules[package], "__version__", None)
    names = importlib.metadata.packages_distributions().get(package)
    return importlib.metadata.version(names[0]) if names else None


def _is_module(name: str) -> bool:
    """Whether it is imported or could be; a folder without code is no module."""
    if name in sys.modules:
        return True
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None


def _find_owner(x: Any) -> Backend | None:
    for name, entry in reversed(_all_entries().items()):
        if name in _loaded or entry.may_own:
            backend = get(name)
            if backend.owns(x):
                return backend
    return None


_PLAIN = (bool, int, float, complex, str, bytes, type(None), list, tuple, dict, type, FunctionType, ModuleType)


def _may_be_claimed_later(kind: type) -> bool:
    return kind not in _PLAIN and not str(kind.__module__).startswith(("polyad.arrays", "polyad.layers."))


class _Callable(ModuleType):
    """polyad.backends is this package and, called, the list of backends."""

    def __call__(self) -> tuple[BackendInfo, ...]:
        return backends()


sys.modules[__name__].__class__ = _Callable
