"""op(f, *args) evaluates at once; op(f) returns a function of the arguments."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["curried"]


def curried(operator: Callable[..., Any]) -> Callable[..., Any]:
    """Both habits. Keywords of the returned function go to f and are not differentiated."""
    parameters = list(inspect.signature(operator).parameters.values())[1:]
    positional = {p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty}

    @functools.wraps(operator)
    def wrapped(f: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if args or not positional.isdisjoint(options):
            return operator(f, *args, **options)

        def of_arguments(*late: Any, **kwargs: Any) -> Any:
            return operator(f, *late, _kwargs=kwargs, **options)

        of_arguments.__name__ = f"{operator.__name__}_of_{getattr(f, '__name__', type(f).__name__)}"
        of_arguments.__doc__ = operator.__doc__
        return of_arguments

    return wrapped
