"""The array-API namespace of jets: rules where there are any, else the parts' own."""

from functools import cache, partial
from typing import Any

from polyad.jets.rule import RULES, apply, has_jets

__all__ = ["JetNamespace", "namespace_over"]


class JetNamespace:
    """Functions of the array API that accept jets; dtypes and creation as in the namespace of the parts."""

    def __init__(self, parts: Any, path: str = "") -> None:
        self.__name__ = f"polyad.jets.namespace{'.' + path.rstrip('.') if path else ''}"
        self._parts, self._path = parts, path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}{name}"
        if path in ("linalg", "fft"):
            value: Any = JetNamespace(self._parts, f"{path}.")
        elif path in RULES:
            value = _function(path)
        else:
            value = _of_parts(self._parts, path)
        self.__dict__[name] = value
        return value


def _function(path: str) -> Any:
    function: Any = partial(apply, path)
    function.__name__ = path
    return function


def _of_parts(parts: Any, path: str) -> Any:
    value: Any = parts
    for part in path.split("."):
        value = getattr(value, part)
    if not callable(value) or isinstance(value, type):
        return value  # dtypes and constants

    def function(*args: Any, **kwargs: Any) -> Any:
        # Without a jet among its arguments, as in xp.zeros(3), it is the parts'
        # own; with one, apply() says that there is no rule.
        return apply(path, *args, **kwargs) if has_jets((*args, *kwargs.values())) else value(*args, **kwargs)

    function.__name__ = path
    return function


@cache
def namespace_over(parts: Any) -> JetNamespace:
    """The namespace of jets over the arrays of this one."""
    return JetNamespace(parts)
