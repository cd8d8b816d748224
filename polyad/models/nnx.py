"""Flax NNX."""

from typing import Any

from flax import nnx

from polyad.layers.layer import Test, Train, Tree
from polyad.models.adopted import Adopted, Arguments, mode_arguments, refuse_options
from polyad.models.jax_leaves import Leaves, kept

__all__ = ["NNX"]


class NNX(Adopted):
    """A flax.nnx.Module.

    params  its nnx.Param variables by name
    state   the other variables, such as BatchStat, and the keys and counts of its
            nnx.Rngs; the mode
    source  nnx.split and nnx.merge. module.train() and module.eval() choose the
            graph; in training mode parts that are frozen in a training module stay so
    """

    backend = "jax"

    def __init__(
        self,
        module: nnx.Module,
        variables: None = None,
        *,
        train: Arguments | None = None,
        test: Arguments | None = None,
    ) -> None:
        refuse_options("NNX", variables=variables)
        super().__init__(module, *mode_arguments(type(module).__call__, train, test))
        flags = _flags(module)
        self.training = not flags or not all(flags)
        self.graphs = {
            True: nnx.graphdef(module if self.training else _in_mode(module, True)),
            False: nnx.graphdef(_in_mode(module, False)),
        }
        params, rest = _split(module)
        self.param_leaves, self.rest_leaves = Leaves(params), Leaves(rest)

    def own(self) -> tuple[Tree, Tree]:
        params, rest = _split(self.source)
        state = {"variables": self.rest_leaves.dict(rest), "mode": Train() if self.training else Test()}
        return self.param_leaves.dict(params), state

    def run(self, args: tuple[Any, ...], kwargs: Arguments, params: Tree, state: Tree, training: bool) -> Any:
        module = self._merged(params, state, training)
        y = module(*args, **kwargs)
        before = state["variables"]
        after = self.rest_leaves.dict(_split(module)[1])
        still = all(after[name] is before[name] or name in self._keys() for name in before)
        return y, {} if still else {"variables": kept(before, after)}

    def released(self, params: Tree, state: Tree) -> Any:
        """A new module with these variables, in this mode."""
        return self._merged(params, state, not isinstance(state["mode"], Test))

    def _merged(self, params: Tree, state: Tree, training: bool) -> Any:
        return nnx.merge(
            self.graphs[training], self.param_leaves.tree(params), self.rest_leaves.tree(state["variables"])
        )

    def _keys(self) -> set[str]:
        """Names of the keys, which never change and are put together anew for each call."""
        return {self.rest_leaves.names[i] for i in self.rest_leaves.keys}


def _split(module: Any) -> tuple[Any, Any]:
    """(parameters, everything else)."""
    parts: Any = nnx.split(module, nnx.Param, ...)
    return parts[1], parts[2]


def _in_mode(module: Any, training: bool) -> Any:
    copy = nnx.clone(module)
    copy.train() if training else copy.eval()
    return copy


def _flags(module: Any) -> list[bool]:
    """Whether each part that knows the mode is in test mode."""
    nodes = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)]
    return [vars(n)[flag] for n in nodes for flag in ("deterministic", "use_running_average") if flag in vars(n)]
