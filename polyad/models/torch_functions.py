"""What a module of torch calls inside of polyad: norms and attention in primitives, random numbers by a seed.

torch's fused norms are wrong at third order and in forward mode (torch 2.13), its
fused attention has no second derivative, and its random numbers are others at
each evaluation. Every function of torch passes the TorchFunctionMode around it;
this one puts formulas in their place, that are right at every order, and numbers
that depend on a seed and on the order of the calls alone.
"""

import functools
import math
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numpy as np
import torch
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from polyad.arrays import stop_gradient, xp
from polyad.backends.torch_forward import NORMS
from polyad.errors import UnsupportedError

__all__ = ["Inside", "random_state"]

Array = Any


class Inside(TorchFunctionMode):  # type: ignore[misc]  # torch has no types for it
    """The block in which an adopted module runs.

    random  seed and count of a state: the same numbers are drawn in each evaluation of one call
    moved   new running statistics by the id of the old ones, which are not written to
    drew    whether random numbers were drawn
    """

    def __init__(self, random: dict[str, Array]) -> None:
        super().__init__()
        self.random, self.drew = random, False
        self.moved: dict[int, Array] = {}
        self._generators: dict[Any, torch.Generator] = {}
        self._hooks = _saving_hooks()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in NORMS:
            self._refuse_checkpoints(func)
            return NORMS[func](self._move, *args, **kwargs)
        if getattr(func, "__name__", "") in RANDOM:
            self._refuse_checkpoints(func)
            return RANDOM[func.__name__](self, func, *args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return attention(self, *args, **kwargs)
        if func in BODIES:
            with self:
                return _body(func)(*args, **kwargs)
        return func(*args, **kwargs)

    def _move(self, old: Array, momentum: float, new: Array) -> None:
        before: Any = self.moved.get(id(old), old)  # a norm that is used twice moves them twice
        self.moved[id(old)] = ((1 - momentum) * before + momentum * new).to(old.dtype)

    def generator(self, device: Any) -> torch.Generator:
        """That of this call for a device."""
        device = torch.get_default_device() if device is None else torch.device(device)
        if device not in self._generators:
            entropy = [int(self.random["seed"]), int(self.random["count"])]
            state = int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])
            self._generators[device] = torch.Generator(device).manual_seed(state >> 1)
        self.drew = True
        return self._generators[device]

    def random_state_after(self) -> dict[str, Array]:
        """What the next call draws from."""
        return {**self.random, "count": self.random["count"] + 1}

    def uniform(self, shape: tuple[int, ...], like: Array) -> Array:
        """Numbers in [0, 1); under vmap the same ones for each entry, as a constant to every transformation."""
        with temporarily_clear_interpreter_stack(), torch.no_grad():
            return torch.rand(shape, dtype=like.dtype, device=like.device, generator=self.generator(like.device))

    def _refuse_checkpoints(self, func: Any) -> None:
        if _saving_hooks() is not self._hooks and torch.is_grad_enabled():
            raise UnsupportedError(
                f"adopt: the module calls {func.__name__} inside of torch.utils.checkpoint, which evaluates it again "
                f"outside of this call, where it would be another function. Switch that checkpoint off; "
                f"nested_switching('recompute') saves the memory"
            )


def random_state(seed: int) -> dict[str, Array]:
    """The part of a state that random numbers come from."""
    return {"seed": torch.tensor(seed), "count": torch.tensor(0)}


def _saving_hooks() -> Any:
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


# Python functions of torch whose parts are among those below. They hand themselves
# over where they find a mode; in these copies they find none, and their parts do.
BODIES = {functional.multi_head_attention_forward, functional.gumbel_softmax}


@functools.cache
def _body(func: Any) -> Any:
    asked = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
    names = {**func.__globals__, **dict.fromkeys(asked, lambda *tensors: False)}
    body = FunctionType(func.__code__, names, func.__name__, func.__defaults__, func.__closure__)
    body.__kwdefaults__ = func.__kwdefaults__
    return body


# Attention.


def attention(
    inside: Inside,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Array:
    """torch.nn.functional.scaled_dot_product_attention, as its page writes it."""
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key = torch.repeat_interleave(key, groups, dim=-3)
        value = torch.repeat_interleave(value, groups, dim=-3)
    scores = query @ xp.matrix_transpose(key) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=query.device).tril()
        attn_mask = allowed if attn_mask is None else attn_mask
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = xp.where(attn_mask, scores, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = xp.softmax(scores, axis=-1)
    if dropout_p:
        weights = _dropout(inside, None, weights, dropout_p)
    return weights @ value


# Random numbers.


def _dropped(inside: Inside, input: Array, p: float, shape: tuple[int, ...], inplace: bool) -> Array:
    """input * mask / (1 - p), one mask entry for each entry of this shape."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    kept = inside.uniform(shape, stop_gradient(input)) >= p
    mask = kept.to(input.dtype) / (1 - p) if p < 1 else torch.zeros(shape, dtype=input.dtype, device=input.device)
    return input.mul_(mask) if inplace else input * mask


def _dropout(
    inside: Inside,
    func: Any,
    input: Array,
    p: float = 0.5,
    training: bool = True,
    inplace: bool = False,
    train: bool = True,
) -> Array:
    if not (training and train and p):
        return input
    return _dropped(inside, input, p, tuple(input.shape), inplace)


def _channels(axes: int) -> Callable[..., Array]:
    """Dropout of whole channels, which are followed by so many axes."""

    def dropout(
        inside: Inside, func: Any, input: Array, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Array:
        if not (training and p):
            return input
        # What torch does: dropout2d alone takes three axes for (N, C, L).
        behind = max(input.ndim - 2, 0) if axes == 2 else axes
        shape = (*input.shape[: input.ndim - behind], *(1,) * behind)
        return _dropped(inside, input, p, tuple(shape), inplace)

    return dropout


def _feature_dropout(inside: Inside, func: Any, input: Array, p: float, train: bool) -> Array:
    return _dropped(inside, input, p, (*input.shape[:2], *(1,) * (input.ndim - 2)), False) if train and p else input


ALPHA = -1.7580993408473766  # the limit of SELU at minus infinity, Klambauer et al. (2017)


def _alpha(features: bool) -> Callable[..., Array]:
    def dropout(
        inside: Inside, func: Any, input: Array, p: float = 0.5, training: bool = False, inplace: bool = False
    ) -> Array:
        if not (training and p):
            return input
        shape = (*input.shape[:2], *(1,) * (input.ndim - 2)) if features else tuple(input.shape)
        if p == 1:
            return input * 0.0
        kept = inside.uniform(shape, stop_gradient(input)) >= p
        a = ((1 - p) * (1 + p * ALPHA**2)) ** -0.5
        y = a * xp.where(kept, input, ALPHA) - a * ALPHA * p
        return input.copy_(y) if inplace else y

    return dropout


def _rrelu(
    inside: Inside,
    func: Any,
    input: Array,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Array:
    slope = (lower + upper) / 2
    if training:
        slope = lower + (upper - lower) * inside.uniform(tuple(input.shape), stop_gradient(input))
    y = xp.where(input >= 0, input, input * slope)
    return input.copy_(y) if inplace else y


def _drawn(inside: Inside, func: Any, *args: Any, **kwargs: Any) -> Any:
    """func with the generator of this call."""
    if kwargs.get("generator") is None:
        like = next((x for x in args if isinstance(x, torch.Tensor)), None)
        kwargs["generator"] = inside.generator(kwargs.get("device") or (None if like is None else like.device))
    return func(*args, **kwargs)


_SAMPLERS = (
    *("bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "normal"),
    *("normal_", "poisson", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "random_"),
    *("randperm", "uniform_"),
)
RANDOM: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_SAMPLERS, _drawn),
    "alpha_dropout": _alpha(features=False),
    "dropout": _dropout,
    "dropout1d": _channels(1),
    "dropout2d": _channels(2),
    "dropout3d": _channels(3),
    "feature_alpha_dropout": _alpha(features=True),
    "feature_dropout": _feature_dropout,
    "rrelu": _rrelu,
}
