"""FILE.py:LOSS: a loss and its arguments, by the place where they are written."""

import importlib.util
import inspect
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from polyad.comparison.stop import line_of, one_line

__all__ = ["arguments", "loss"]

PLACE, ARGS = "FILE.py:LOSS", "--args"


def loss(place: str) -> tuple[Callable[..., Any], ModuleType]:
    """The function at "heat.py:loss", and its module.

    raises  typer.BadParameter, one line that says what is wrong with it
    """
    file, _, name = place.rpartition(":")
    if not file or not name:
        raise _refused(f"{place!r} is no place of a function; write it as heat.py:loss", PLACE)
    module = _module(Path(file), PLACE)
    found = _attribute(module, name, PLACE)
    if not callable(found):
        raise _refused(f"{name} in {file} is no function, but of type {type(found).__name__}", PLACE)
    return found, module


def arguments(f: Callable[..., Any], module: ModuleType, place: str | None) -> tuple[Any, ...]:
    """The arguments of f: those at `place`; else LOSS_args or args in its file; else the defaults of its parameters."""
    if place is not None:
        file, _, name = place.rpartition(":")
        home = _module(Path(file), ARGS) if file else module
        return _tuple(_attribute(home, name, ARGS), name)
    for name in (f"{getattr(f, '__name__', '')}_args", "args"):
        if hasattr(module, name):
            return _tuple(getattr(module, name), name)
    return _defaults(f)


def _tuple(found: Any, name: str) -> tuple[Any, ...]:
    if callable(found):
        try:
            found = found()
        except Exception as error:
            raise _refused(f"{name}() raised {_told(error)}", ARGS) from error
    if isinstance(found, list):
        found = tuple(found)
    if not isinstance(found, tuple):
        raise _refused(f"{name} is {type(found).__name__}, not a tuple of arguments. Type {name} = (x, y)", ARGS)
    return found


def _defaults(f: Callable[..., Any]) -> tuple[Any, ...]:
    name = getattr(f, "__name__", repr(f))
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]
    given = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    missing = [p.name for p in given if p.default is p.empty]
    if not given:
        raise _refused(f"{name} takes no arguments, so that it has no gradient", PLACE)
    if missing:
        raise _refused(
            f"there is no value for {', '.join(missing)} of {name}. Write {name}_args = ({', '.join(missing)}"
            f"{',' * (len(missing) == 1)}) into its file, or a function {name}_args() that returns this tuple, or "
            f"type --args NAME",
            ARGS,
        )
    return tuple(p.default for p in given)


def _module(file: Path, option: str) -> ModuleType:
    """The file, run once; its folder is where it finds its neighbours, as for `python FILE.py`."""
    if not file.is_file():
        close = get_close_matches(file.name, [p.name for p in file.parent.glob("*.py")], 1)
        hint = f" Did you mean {file.with_name(close[0])}?" if close else ""
        raise _refused(f"there is no file {file}.{hint}", option)
    path = file.resolve()
    name = f"polyad_compared_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise _refused(f"{file} is no Python file", option)
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if not isinstance(error, Exception | SystemExit):
            raise
        raise _refused(f"running {file} raised {_told(error)}", option) from error
    return module


def _told(error: BaseException) -> str:
    line = line_of(error)
    return f"{one_line(error)} ({line})" if line else one_line(error)


def _attribute(module: ModuleType, name: str, option: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    own = [
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and (option == ARGS or getattr(value, "__module__", "") == module.__name__)
    ]
    close = get_close_matches(name, own, 1)
    hint = f" Did you mean {close[0]}?" if close else f" It has {', '.join(own)}." if own else ""
    raise _refused(f"{module.__file__} has no {name!r}.{hint}", option)


def _refused(message: str, option: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint=option)
