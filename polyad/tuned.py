"""What `tune` has measured: remembered on disk, and looked up by the calls that it was measured for.

A choice changes what a derivative costs and never what it is, so a wrong one costs time
alone. It is kept under a key of everything that the time depends on and that can be seen
without running f: versions of Python, polyad and the framework, the processor or other
device, the operator, shapes and dtypes of the arguments and of the arrays that f
captures, whether the code is compiled later and whether it is differentiated around, and
f itself: its name, its code, and the functions that it closes over. One file a key, so
that processes that write at the same time do not meet.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import os
import platform
import sys
import tempfile
import threading
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from types import CodeType
from typing import Any

from polyad.arrays import dtype_name
from polyad.backends import depth, evaluates, is_array
from polyad.captures import captured_arrays
from polyad.errors import PolyadWarning
from polyad.version import __version__

__all__ = ["Choice", "Level", "Trial", "choice", "folder", "forget", "remember", "seen", "trying", "watched"]

SCHEMA = 1


@dataclass(frozen=True)
class Choice:
    """What a call does where the user leaves it open. None: as if it had not been tuned.

    mode     of the pass
    at_once  how many directions go through one sweep; 0 for as many as fit in memory
    keeps    the strategy for the pass around it
    date     of the measurement
    """

    mode: str | None = None
    at_once: int | None = None
    keeps: str | None = None
    date: str = ""

    def __post_init__(self) -> None:
        fits = self.mode in (None, "forward", "reverse") and isinstance(self.date, str)
        fits = fits and (self.at_once is None or (type(self.at_once) is int and self.at_once >= 0))
        if not fits or self.keeps not in (None, "taped", "recompute", "forward_over_reverse"):
            raise ValueError(f"not a choice: {self}")

    @property
    def why(self) -> str:
        """For explain."""
        return f"tuned on {self.date}" if self.date else "as tune asks for"

    def __str__(self) -> str:
        ways = {None: "", 0: "together", 1: "one by one"}
        parts = (self.mode, ways.get(self.at_once, f"{self.at_once} at once"), self.keeps)
        return ", ".join(part for part in parts if part) or "as predicted"


# Looking up.


def watched() -> bool:
    """Whether anything is remembered or tried: else no call is looked up."""
    return bool(_trials or (_listed() if _files is None else _files))


def choice(call: Any) -> Choice | None:
    """What was measured to be best for this call; None where nothing was."""
    if not watched():
        return None
    found: Choice | None
    try:
        found = call.__dict__["tuned"]
    except KeyError:
        found = call.__dict__["tuned"] = _looked_up(call)
    return found


_files: set[str] | None = None  # names of the files of remembered choices; None before they were looked for
_read: dict[str, Choice | None] = {}
_lock = threading.RLock()


def _looked_up(call: Any) -> Choice | None:
    trial = _trial.get()
    if trial is not None:
        return trial.forced.get(trial.level(call).key)
    start = _start(call)
    if not any(name.startswith(start) for name in _files or ()):
        return None
    nested = _nested(call)
    with suppress(Exception):  # of a function that cannot be described, nothing was remembered
        for around in (nested, not nested):
            found = _remembered(f"{start}-{key(call, around)}.json")
            if found is not None:
                return found
    return None


def _remembered(name: str) -> Choice | None:
    if name not in (_files or ()):
        return None
    with _lock:
        if name not in _read:
            _read[name] = _from_disk(folder() / name)
        return _read[name]


def _from_disk(path: Path) -> Choice | None:
    try:
        found = json.loads(path.read_text("utf-8"))
        return Choice(**found["choice"]) if found["schema"] == SCHEMA else None
    except FileNotFoundError:
        return None  # somebody has emptied the folder
    except (OSError, ValueError, TypeError, KeyError) as error:
        warnings.warn(
            f"{path} does not hold what polyad.tune wrote there ({type(error).__name__}: {error}); it is ignored. "
            f"Delete it, or tune again",
            PolyadWarning,
            stacklevel=2,
        )
        return None


# Remembering.


def folder() -> Path:
    """Where choices are remembered: POLYAD_CACHE, else the user's folder for such files."""
    if own := os.environ.get("POLYAD_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyad"


def remember(level: Level, chosen: Choice, seconds: dict[str, float]) -> Path:
    """Write the choice for a level to disk, in one step, and use it from now on.

    raises  OSError where the folder cannot be written to
    """
    _listed()
    where = folder()
    where.mkdir(parents=True, exist_ok=True)
    name = f"{level.key}.json"
    text = json.dumps(
        {
            "schema": SCHEMA,
            "operator": level.operator,
            "function": level.name,
            "backend": level.backend,
            "choice": asdict(chosen),
            "seconds": seconds,
        },
        indent=1,
    )
    handle, temporary = tempfile.mkstemp(dir=where, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, where / name)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    with _lock:
        assert _files is not None
        _files.add(name)
        _read[name] = chosen
    return where / name


def forget() -> None:
    """Look at the disk again at the next call."""
    global _files
    with _lock:
        _files = None
        _read.clear()


def _listed() -> set[str]:
    global _files
    with _lock:
        if _files is None:
            try:
                _files = {name for name in os.listdir(folder()) if name.endswith(".json") and name[0] != "."}
            except (OSError, RuntimeError):  # there is none, or no home
                _files = set()
        return _files


# Trials: what tune does.


@dataclass
class Level:
    """One derivative of a call that is tuned: the operator, and what could be chosen for it."""

    operator: str
    name: str
    backend: str
    key: str
    depth: int
    nested: bool
    modes: tuple[str, ...] = ()
    directions: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{'    ' * self.depth}{self.operator} of {self.name}"


class Trial:
    """The levels that a call of an operator is seen to have, by their keys, and what they are to do.

    forced  a choice by key; a level without one does what is predicted to be best
    """

    def __init__(self, forced: Mapping[str, Choice] | None = None) -> None:
        self.levels: dict[str, Level] = {}
        self.forced = forced or {}

    def level(self, call: Any) -> Level:
        """That of this call; one that was not met before is added."""
        nested = _nested(call)
        own = f"{_start(call)}-{key(call, nested)}"
        if own not in self.levels:
            self.levels[own] = Level(call.operator, _name(_outermost(call.f)), call.backend.name, own, depth(), nested)
        return self.levels[own]


_trial: ContextVar[Trial | None] = ContextVar("polyad_trial", default=None)
_trials = 0


@contextmanager
def trying(trial: Trial) -> Iterator[None]:
    """A block whose calls report to the trial, and do what it says."""
    global _trials
    token = _trial.set(trial)
    with _lock:
        _trials += 1
    try:
        yield
    finally:
        with _lock:
            _trials -= 1
        _trial.reset(token)


def seen(call: Any, mode: str, columns: int, rows: int | None) -> None:
    """Tell the trial, if there is one, of a call that could choose its mode, and how many directions each needs."""
    trial = _trial.get() if _trials else None
    if trial is not None:
        level = trial.level(call)
        level.modes = level.modes or (call.backend.modes if mode == "auto" else ())
        level.directions |= {"forward": columns, "reverse": rows or 1}


# Keys.


def _nested(call: Any) -> bool:
    return evaluates() or call.backend.differentiates_here(call.xs)


def _start(call: Any) -> str:
    """The beginning of a key, which takes a microsecond."""
    return f"{zlib.crc32(f'{_operator(call)} {call.backend.name} {_name(call.f)}'.encode()):08x}"


def _name(f: Any) -> str:
    return getattr(f, "__qualname__", None) or type(f).__qualname__


def _operator(call: Any) -> str:
    return str(call.operator).removeprefix("value_and_")


def key(call: Any, nested: bool) -> str:
    """Everything that the time of this call depends on, as far as it is seen before it runs."""
    arguments = [(str(spec), *map(_kind, leaves)) for spec, leaves in zip(call.specs, call.leaves, strict=True)]
    of_f = identity(call.f), *map(_kind, captured_arrays(call.f))
    place = nested, call.backend.compiles_here(), _hardware(call)
    facts = _versions(call.backend.name), _operator(call), call.argnums, call.chunk_size, arguments, of_f, place
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def _kind(leaf: Any) -> Any:
    if is_array(leaf):
        return tuple(leaf.shape), dtype_name(leaf.dtype)
    return type(leaf).__name__


def _hardware(call: Any) -> str:
    first = next((x for x in call.xs), None)
    return call.backend.hardware(first) or _processor()


@functools.cache
def _processor() -> str:
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache
def _versions(backend: str) -> tuple[str, ...]:
    try:
        framework = metadata.version(backend)
    except metadata.PackageNotFoundError:
        framework = ""
    return __version__, ".".join(map(str, sys.version_info[:2])), backend, framework


DEPTH = 5


def identity(f: Any, levels: int = DEPTH) -> Any:
    """What f is, apart from the values that it holds: names, code, and the functions in it."""
    if levels < 0:
        return ""
    if inspect.ismethod(f):
        held = identity(f.__self__, levels - 1)
        return held if hasattr(type(f.__self__), "declared_arrays") else (f.__name__, held)
    if isinstance(f, functools.partial):
        return "partial", identity(f.func, levels - 1)
    if inspect.isfunction(f):
        held = tuple(identity(content, levels - 1) for content in _held(f))
        return f.__module__, f.__qualname__, _digest(f.__code__), held
    return type(f).__module__, type(f).__qualname__


def _outermost(f: Any) -> Any:
    """The function of the user that f, one of polyad's own, was made for."""
    while inspect.isfunction(f) and f.__module__.startswith("polyad."):
        inside = next(_held(f), None)
        if inside is None:
            break
        f = inside
    return f


def _held(f: Any) -> Iterator[Any]:
    """Functions that f closes over, those of other calls of polyad included."""
    for cell in f.__closure__ or ():
        with suppress(ValueError):  # a variable that is not assigned yet
            content = cell.cell_contents
            if callable(content) and not isinstance(content, type):
                yield content
            elif callable(own := vars(content).get("f") if hasattr(content, "__dict__") else None):
                yield own


@functools.lru_cache(maxsize=4096)
def _digest(code: CodeType) -> str:
    """Of what the code does, wherever it stands in the file."""
    inside = [_digest(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return hashlib.sha256(repr((code.co_code, code.co_names, inside)).encode()).hexdigest()[:16]
