"""Which modules are sites: layers that compute exactly what torch's Linear and Conv2d compute, and the products of attention."""

from typing import TypeGuard

from torch import nn

from vitdfq.models.attention import MatMul


def is_layer(part: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Return whether a module computes what its base, Linear or Conv2d, computes from its weight and bias, and nothing else.

    A subclass with a forward of its own (a convolution that standardizes its weight or pads by the size of its input) is none.
    """
    if isinstance(part, nn.Linear):
        return type(part).forward is nn.Linear.forward
    if not isinstance(part, nn.Conv2d) or part.padding_mode != "zeros" or isinstance(part.padding, str):
        return False
    return type(part).forward is nn.Conv2d.forward and type(part)._conv_forward is nn.Conv2d._conv_forward


def sites(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d | MatMul]:
    """Return every module that `quantize` replaces, by name: Linear, Conv2d and the products of attention."""
    return {name: part for name, part in model.named_modules() if isinstance(part, MatMul) or is_layer(part)}
