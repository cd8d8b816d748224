"""explain: which pass runs at which level, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from polyad.errors import ArgumentError
from polyad.steps import Step, recording

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """The steps of one call, outermost first; str() is the text that `explain` prints."""

    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return "\n".join(line for step in self.steps for line in step.lines())

    def __repr__(self) -> str:
        return f"<Explanation of {', '.join(step.operator for step in self.steps)}>"


def explain(operator: Callable[..., Any], f: Callable[..., Any], *args: Any, **options: Any) -> Explanation:
    """Run operator(f, *args, **options) once, and print the plan of each level of nested derivatives.

    operator  gradient, jacobian, vjp, ...: an operator of polyad
    returns   the Explanation, whose str() is what was printed. For each level:
              the pass and its number of sweeps with the reason, and for inner
              ones the strategy, which is what they keep for the pass around
    raises    ArgumentError for something that is no operator of polyad

        explain(gradient, loss, params, x)
    """
    with recording() as root:
        operator(f, *args, **options)
    if not root.inner:
        raise ArgumentError(
            f"explain: {getattr(operator, '__name__', operator)!r} took no derivative by polyad. "
            "Type explain(gradient, f, x), the operator first and not called"
        )
    explanation = Explanation(tuple(root.inner))
    print(explanation)
    return explanation
