"""value_and_...: what an operator gives and the value of f, from the same evaluation."""

import functools
from collections.abc import Callable
from typing import Any

from polyad.operators.call import KeepValue
from polyad.operators.passes import evaluating

__all__ = ["value_and"]


def value_and(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The operator as one that returns (value, result), with has_aux ((value, aux), result).

    The value leaves the pass beside the derivative, as aux does, so f is not
    evaluated for it. Of a StatefulLayer the state is written once, as a plain
    call does.
    """

    @functools.wraps(operator)
    def valued(f: Callable[..., Any], *args: Any, has_aux: bool = False, **options: Any) -> Any:
        f, write = evaluating(f, has_aux)
        out = operator(f, *args, has_aux=KeepValue(has_aux or write is not None), **options)

        def turned(out: Any) -> Any:
            result, (value, aux) = out
            if write is not None:
                write(aux)
            return ((value, aux), result) if has_aux else (value, result)

        return functools.partial(_late, turned, out) if callable(out) else turned(out)

    valued.__name__ = valued.__qualname__ = f"value_and_{operator.__name__}"
    valued.__doc__ = f"""f and its {operator.__name__}, from one evaluation of f; otherwise as `{operator.__name__}`.

    returns  (value, {operator.__name__}), with has_aux ((value, aux), {operator.__name__}). The value is
             differentiable too. Of a StatefulLayer the state is written once
    """
    return valued


def _late(turned: Callable[[Any], Any], operator: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return turned(operator(*args, **kwargs))
