"""A namespace with some functions in place of its own."""

from collections.abc import Mapping
from typing import Any

__all__ = ["Overlay"]


class Overlay:
    """The given functions, and a module for everything else."""

    def __init__(self, name: str, functions: Mapping[str, Any], fallback: Any) -> None:
        self.__name__ = name
        self.__dict__.update(functions)
        self._fallback = fallback

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._fallback, name)
        self.__dict__[name] = value
        return value
