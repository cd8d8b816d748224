"""Scale, and what the norms share: a scale and a bias for each channel."""

from typing import Any

import numpy as np

from polyad.layers.layer import Layer, Random, Tree, check_features, check_sizes, named_parameter

__all__ = ["Affine", "Scale"]


class Affine(Layer):
    """A layer of `features` channels, the last axis, that ends with x * scale + bias."""

    def __init__(self, features: int, *, eps: float = 1e-5, affine: bool = True) -> None:
        check_sizes(type(self).__name__, features=features)
        self.features, self.eps, self.affine = features, eps, affine

    def __repr__(self) -> str:
        parts = [str(self.features), *([] if self.eps == 1e-5 else [f"eps={self.eps}"])]
        return f"{type(self).__name__}({', '.join(parts + ([] if self.affine else ['affine=False']))})"

    def init(self, random: Random) -> tuple[Tree, Tree]:
        return {key: np.full(self.features, float(key == "scale"), np.float32) for key in self.parameter_shapes()}, {}

    def parameter_shapes(self) -> Tree:
        return {"scale": (self.features,), "bias": (self.features,)} if self.affine else {}

    def scaled(self, x: Any, params: Tree, factor: Any = None) -> Any:
        """x * factor * scale + bias; a factor of each channel meets the scale first, which is less work."""
        names = self.parameter_shapes()
        if "scale" in names:
            scale = named_parameter(self, params, "scale")
            if factor is not None and factor.shape[-1] == self.features:
                scale, factor = factor * scale, None
            x = (x if factor is None else x * factor) * scale
        elif factor is not None:
            x = x * factor
        return x + named_parameter(self, params, "bias") if "bias" in names else x


class Scale(Affine):
    """x * scale + bias, one number for each channel, x of shape (..., features); first 1 and 0."""

    def __init__(self, features: int, *, bias: bool = True) -> None:
        super().__init__(features)
        self.bias = bias

    def __repr__(self) -> str:
        return f"Scale({self.features}{'' if self.bias else ', bias=False'})"

    def parameter_shapes(self) -> Tree:
        return {"scale": (self.features,), **({"bias": (self.features,)} if self.bias else {})}

    def __call__(self, x: Any, params: Tree, state: Tree) -> tuple[Any, Tree]:
        check_features(self, x, self.features)
        return self.scaled(x, params), state
