"""NumPy's own spelling: np.tanh(jet), np.sum(jet, axis=0), np.where(...).

NumPy hands every call with a jet among its arguments to the two protocols of
NEP 13 and NEP 18. Here its names and signatures become those of the standard.
A function or an option that is not in the tables raises; none falls back to
plain values.
"""

import inspect
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from polyad.arrays import stop_gradient, xp
from polyad.compositions import COMPOSITIONS, MATRIX_COMPOSITIONS
from polyad.errors import UnsupportedError
from polyad.jets.rule import RULES, apply

__all__ = ["FUNCTIONS", "call_function", "call_ufunc", "constant", "rule", "standard"]

_UFUNC_NAMES = {
    "absolute": "abs",
    "fabs": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "conjugate": "conj",
    "float_power": "pow",
    "power": "pow",
    "rint": "round",
}
_COMPOSED: dict[str, Callable[..., Any]] = {
    "deg2rad": lambda x: x * (np.pi / 180),
    "radians": lambda x: x * (np.pi / 180),
    "rad2deg": lambda x: x * (180 / np.pi),
    "degrees": lambda x: x * (180 / np.pi),
    "divmod": lambda a, b: (a // b, a % b),
    "modf": lambda x: (x - np.trunc(x), np.trunc(x)),
    "matvec": lambda a, b: (a @ b[..., None])[..., 0],
    "vecmat": lambda a, b: (a[..., None, :] @ b)[..., 0, :],
}
_REDUCTIONS = {"add": np.sum, "multiply": np.prod, "maximum": np.max, "minimum": np.min}
_UFUNC_DEFAULTS: dict[str, Any] = {"where": True, "dtype": None, "casting": "same_kind", "order": "K", "subok": True}


def call_ufunc(ufunc: Any, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What Jet.__array_ufunc__ answers."""
    name = ufunc.__name__
    if getattr(np, name, None) is not ufunc:  # another package's, whatever its name
        raise _unsupported(f"the ufunc {name!r}")
    if method == "reduce" and name in _REDUCTIONS:
        return call_function(_REDUCTIONS[name], inputs, {"axis": 0, **kwargs})
    if method != "__call__":
        raise _unsupported(f"np.{name}.{method}")
    for key, value in kwargs.items():
        if key == "out" and any(out is not None for out in value):
            raise _refused(f"np.{name}", "out")
        if key != "out" and not (key in _UFUNC_DEFAULTS and _same(value, _UFUNC_DEFAULTS[key])):
            raise _refused(f"np.{name}", key)
    inputs = tuple(xp.asarray(x) if isinstance(x, list | tuple) else x for x in inputs)
    if name in _COMPOSED:
        return _COMPOSED[name](*inputs)
    name = _UFUNC_NAMES.get(name, name)
    if name not in RULES:
        raise _unsupported(f"np.{name}")
    return apply(name, *inputs)


def _unsupported(name: str) -> UnsupportedError:
    return UnsupportedError(
        f"{name} has no rule for arrays that are being differentiated on the numpy backend. Write it with functions "
        f"that have one (docs/numpy.md lists them), or choose backend='autograd', 'jax' or 'torch'; "
        f"polyad.stop_gradient(x) makes x a constant"
    )


def _refused(name: str, key: str) -> UnsupportedError:
    if key == "out":
        return UnsupportedError(
            f"{name}(..., out=...) and augmented assignments such as out += x write into an array, which has no "
            f"derivative rule. Write out = {name}(...), or out = out + x"
        )
    return UnsupportedError(
        f"{name}(..., {key}=...) has no derivative rule for this value of {key}. Call it without {key}="
    )


def _same(value: Any, default: Any) -> bool:
    return value is default or (isinstance(value, str | bool | int | float) and value == default)


FUNCTIONS: dict[Any, Callable[..., Any]] = {}
_SIGNATURES: dict[Any, Any] = {}


def call_function(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What Jet.__array_function__ answers."""
    answer = FUNCTIONS.get(func)
    if answer is None:
        raise _unsupported(_name(func))
    names, positional = _parameters(func)
    if names is not None and (len(args) > positional or not names.issuperset(kwargs)):
        args, kwargs = _without_defaults(func, names, args, kwargs)
    return answer(*args, **kwargs)


def _name(func: Any) -> str:
    module = getattr(func, "__module__", None) or "numpy"
    return f"{module.replace('numpy', 'np', 1)}.{func.__name__}"


@cache
def _parameters(func: Any) -> tuple[frozenset[str] | None, float]:
    """Options that the rule of this function takes, None for all, and how many positions."""
    kinds = {name: p.kind for name, p in inspect.signature(_SIGNATURES[func]).parameters.items() if name != "level"}
    if inspect.Parameter.VAR_KEYWORD in kinds.values():
        return None, math.inf
    names = frozenset(name for name, kind in kinds.items() if kind is not inspect.Parameter.POSITIONAL_ONLY)
    if inspect.Parameter.VAR_POSITIONAL in kinds.values():
        return names, math.inf
    return names, sum(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds.values())


def _without_defaults(func: Any, names: frozenset[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The arguments that its rule takes; the rest of NumPy's must be at their defaults."""
    first: list[Any] = []
    given: dict[str, Any] = {}
    parameters = inspect.signature(func).parameters
    bound = inspect.signature(func).bind(*args, **kwargs)
    for i, (name, value) in enumerate(bound.arguments.items()):
        if parameters[name].kind is inspect.Parameter.VAR_POSITIONAL:
            first.extend(value)
        elif name in names:
            given[name] = value
        elif i == 0:  # what NumPy calls a, m or ary
            first.append(value)
        elif not _same(value, parameters[name].default):
            raise _refused(_name(func), name)
    return tuple(first), given


def rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Enter the answer for these functions of NumPy; its parameters bear NumPy's names."""

    def enter(f: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = _SIGNATURES[function] = f
        return f

    return enter


def standard(*names: str) -> None:
    """Functions whose NumPy signature is the standard's."""
    for name in names:
        function = _of_numpy(name)
        FUNCTIONS[function] = lambda *args, _name=name, **kwargs: apply(_name, *args, **kwargs)
        module, _, last = name.rpartition(".")
        _SIGNATURES[function] = (MATRIX_COMPOSITIONS if module else COMPOSITIONS).get(last, RULES[name])


def constant(*names: str) -> None:
    """Functions whose results have no derivative: the plain values are enough."""
    for name in names:
        function = _of_numpy(name)
        rule(function)(lambda *args, _f=function, **kwargs: _f(*stop_gradient(args), **stop_gradient(kwargs)))


def _of_numpy(name: str) -> Any:
    value: Any = np
    for part in name.split("."):
        value = getattr(value, part)
    return value
