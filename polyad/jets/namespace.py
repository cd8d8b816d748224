"""The array-API namespace of jets: rules where there are any, else the parts' own."""

from typing import Any

import array_api_compat.numpy as parts

from polyad.jets.rule import RULES, apply

__all__ = ["JetNamespace", "namespace"]


class JetNamespace:
    """Functions of the array API that accept jets; dtypes and creation as in NumPy."""

    def __init__(self, path: str = "") -> None:
        self.__name__ = f"polyad.jets.namespace{'.' + path.rstrip('.') if path else ''}"
        self._path = path

    def __getattr__(self, name: str) -> Any:
        path = f"{self._path}{name}"
        if path in ("linalg", "fft"):
            value: Any = JetNamespace(f"{path}.")
        elif path in RULES:
            value = _function(path)
        else:
            value = _of_parts(path)
        self.__dict__[name] = value
        return value


def _function(path: str) -> Any:
    def function(*args: Any, **kwargs: Any) -> Any:
        return apply(path, *args, **kwargs)

    function.__name__ = path
    return function


def _of_parts(path: str) -> Any:
    value: Any = parts
    for part in path.split("."):
        value = getattr(value, part)
    if not callable(value) or isinstance(value, type):
        return value  # dtypes and constants

    def function(*args: Any, **kwargs: Any) -> Any:
        # Without a jet among its arguments, as in xp.zeros(3), it is the parts'
        # own; with one, apply() says that there is no rule.
        from polyad.jets.rule import apply_levels

        has_jets = any(apply_levels((*args, *kwargs.values())))
        return apply(path, *args, **kwargs) if has_jets else value(*args, **kwargs)

    function.__name__ = path
    return function


namespace = JetNamespace()
