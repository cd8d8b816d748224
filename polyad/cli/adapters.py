"""--backend theirs.module:Adapter: the adapter of somebody else, by the place where it is."""

import importlib
import os
import sys
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import typer

from polyad.backends import backends, get, register_backend
from polyad.backends.base import Backend

__all__ = ["register"]

OPTION = "--backend"


def register(place: str) -> str:
    """The name of the adapter at "theirs.module:Adapter", a Backend class or an instance, now registered.

    raises  typer.BadParameter, one line that says what is wrong with it
    """
    name, _, attribute = place.partition(":")
    if not name or name.startswith("."):
        raise _refused(f"{place!r} is no place; write module:Adapter")
    found = _attribute(_module(name), attribute, place)
    adapter = _instance(found, place)
    if not isinstance(getattr(adapter, "name", None), str):
        raise _refused(f"{place} has no name. Type in the class: name = {name.rpartition('.')[2]!r}")
    if adapter.name not in [info.name for info in backends()]:
        register_backend(adapter.name, adapter)
    elif _kind(adapter.name) is not type(adapter):
        raise _refused(f"{place} is named {adapter.name!r}, and so is another backend. Give it another name")
    return adapter.name


def _kind(name: str) -> type | None:
    """The class of the adapter that has this name; None where it does not load."""
    try:
        return type(get(name))
    except Exception:  # its framework may be missing, or raise anything
        return None


def _module(name: str) -> ModuleType:
    folder = os.getcwd()
    if folder not in sys.path:  # a command has the folder of its script there in its place
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise _refused(
                f"there is no module {error.name!r}, neither in {folder} nor among the installed ones"
            ) from error
        raise _refused(f"{name} needs the module {error.name!r}, which is not installed") from error
    except Exception as error:
        raise _refused(f"importing {name} raised {type(error).__name__}: {error}") from error


def _attribute(module: ModuleType, name: str, place: str) -> Any:
    if hasattr(module, name):
        return getattr(module, name)
    there = [key for key, value in vars(module).items() if _is_adapter(value) and value is not Backend]
    close = get_close_matches(name, there, 1) or there[:1]
    hint = f" Did you mean {module.__name__}:{close[0]}?" if close else " It has no Backend at all."
    raise _refused(f"{place}: {module.__name__} has no {name!r}.{hint}")


def _is_adapter(value: Any) -> bool:
    return isinstance(value, Backend) or (isinstance(value, type) and issubclass(value, Backend))


def _instance(found: Any, place: str) -> Backend:
    if not _is_adapter(found):
        raise _refused(
            f"{place} is of type {type(found).__name__}; "
            f"it must be a subclass of polyad.backends.base.Backend, or an instance"
        )
    if not isinstance(found, type):
        return found
    try:
        return found()
    except Exception as error:
        raise _refused(f"{place} cannot be made: {error}") from error


def _refused(message: str) -> typer.BadParameter:
    return typer.BadParameter(message, param_hint=OPTION)
