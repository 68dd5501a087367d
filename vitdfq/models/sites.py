"""Which modules are sites: layers that compute exactly what torch's Linear and Conv2d compute, and the products of attention."""

from typing import TypeGuard, final

from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models.attention import MatMul


@final
class PaddedConv2d(nn.Conv2d):
    """A convolution that pads its sides by different widths: TensorFlow's "same" padding for an input of one size."""

    edges: tuple[int, int, int, int]  # zeros on the left, right, top and bottom

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, self.edges))


def is_layer(part: nn.Module) -> TypeGuard[nn.Linear | nn.Conv2d]:
    """Return whether a module computes what its base, Linear or Conv2d, computes from its weight and bias, and nothing else.

    A subclass with a forward of its own (a convolution that standardizes its weight or pads by the size of its input) is none.
    """
    if isinstance(part, nn.Linear):
        return type(part).forward is nn.Linear.forward
    if not isinstance(part, nn.Conv2d) or part.padding_mode != "zeros" or isinstance(part.padding, str):
        return False
    if type(part) is PaddedConv2d:
        return True
    return type(part).forward is nn.Conv2d.forward and type(part)._conv_forward is nn.Conv2d._conv_forward


def put(model: nn.Module, name: str, part: nn.Module) -> None:
    """Replace the submodule of that name by another one, under all names that it has: a model may use it in several places."""
    old = model.get_submodule(name)
    for other in [other for other, module in model.named_modules(remove_duplicate=False) if module is old]:
        model.set_submodule(other, part)


def sites(model: nn.Module) -> dict[str, nn.Linear | nn.Conv2d | MatMul]:
    """Return every module that `quantize` replaces, by name: Linear, Conv2d and the products of attention."""
    return {name: part for name, part in model.named_modules() if isinstance(part, MatMul) or is_layer(part)}
