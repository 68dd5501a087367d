"""A module and its quantizers: what stands in a student where the teacher has a Linear, a Conv2d or a MatMul."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class QuantLinear(nn.Module):
    """Linear with quantized weight (out, in) and input (..., in).

    `input_shift` (in,) is subtracted from the input before it is quantized; the float weight has met it already, in `bias`. It is
    zero unless `center` moved a mean. Where a norm or a linear layer writes the input, a runtime subtracts it in that one's bias.
    """

    input_shift: Tensor

    def __init__(self, linear: nn.Linear, weight_quantizer: nn.Module, input_quantizer: nn.Module) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.register_buffer("input_shift", linear.weight.new_zeros(linear.in_features))
        self.weight_quantizer, self.input_quantizer = weight_quantizer, input_quantizer
        self.weight_on_grid = False

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input_quantizer(x - self.input_shift), quantized_weight(self), self.bias)


class QuantConv2d(nn.Module):
    """Conv2d with quantized weight and input: the patch embedding."""

    def __init__(self, conv: nn.Conv2d, weight_quantizer: nn.Module, input_quantizer: nn.Module) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.weight_quantizer, self.input_quantizer = weight_quantizer, input_quantizer
        self.weight_on_grid = False

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(self.input_quantizer(x), quantized_weight(self))

    def convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        """The convolution of what is quantized already."""
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class QuantMatMul(nn.Module):
    """Product of two quantized activations, left (..., N, K) @ right (..., K, M).

    `renormalize` divides each output row by the sum of its quantized left row: a softmax row rounded to powers of two sums to
    anything in [2^-1/2, 2^1/2]; one division an output row repairs that, after the integer product.

    `left_shift` (heads, 1, K) is subtracted from the left operand before it is quantized, and its own product with the
    quantized right operand added back, one row a head: a zero point with a value for each channel. Zero unless `center` set it.
    """

    left_shift: Tensor | None

    def __init__(
        self,
        left_quantizer: nn.Module,
        right_quantizer: nn.Module,
        *,
        renormalize: bool = False,
        left_shift: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("left_shift", left_shift)
        self.left_quantizer, self.right_quantizer = left_quantizer, right_quantizer
        self.renormalize = renormalize

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        right = self.right_quantizer(right)
        if self.left_shift is None:
            return self.multiply(self.left_quantizer(left), right)
        return self.multiply(self.left_quantizer(left - self.left_shift), right) + self.left_shift @ right

    def multiply(self, left: Tensor, right: Tensor) -> Tensor:
        """The product of operands that are quantized already."""
        product = left @ right
        return product / left.sum(-1, keepdim=True).clamp(min=0.1) if self.renormalize else product


QuantWeighted = QuantLinear | QuantConv2d  # the modules that own a weight


def quantized_weight(module: QuantWeighted) -> Tensor:
    """The weight on its grid; quantized on the fly until `put_weight_on_grid`."""
    if module.weight_on_grid:
        return module.weight
    rows = module.weight.flatten(1)  # (out, in)
    return module.weight_quantizer(rows).view_as(module.weight)


@torch.no_grad()
def put_weight_on_grid(module: QuantWeighted) -> None:
    """Replace the weight by its quantized values: from now on it is read as it is, until `take_weight_off_grid`."""
    module.weight.copy_(quantized_weight(module))
    module.weight_on_grid = True


def take_weight_off_grid(module: QuantWeighted) -> None:
    """Quantize the weight on the fly again, as whatever moves it must: a value on the grid stays where it is."""
    module.weight_on_grid = False


def activation_quantizers(module: nn.Module) -> list[nn.Module]:
    """Every quantizer of an input or operand inside `module`, in the order of registration."""
    found: list[nn.Module] = []
    for part in module.modules():
        if isinstance(part, QuantLinear | QuantConv2d):
            found.append(part.input_quantizer)
        elif isinstance(part, QuantMatMul):
            found += [part.left_quantizer, part.right_quantizer]
    return [quantizer for quantizer in found if not isinstance(quantizer, nn.Identity)]


def named_weighted_modules(module: nn.Module) -> list[tuple[str, QuantWeighted]]:
    """Every QuantLinear and QuantConv2d inside `module`, after its name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, QuantLinear | QuantConv2d)]


def weighted_modules(module: nn.Module) -> list[QuantWeighted]:
    """Every QuantLinear and QuantConv2d inside `module`."""
    return [part for _, part in named_weighted_modules(module)]


def state_of(owners: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Copies of everything that modules hold, as one dict."""
    return {name: value.clone() for name, value in nn.ModuleList(owners).state_dict().items()}


def restore_state(owners: Sequence[nn.Module], state: dict[str, Tensor]) -> None:
    """Put what `state_of` copied back."""
    nn.ModuleList(owners).load_state_dict(state)


def bits_of(student: nn.Module) -> dict[str, int | None]:
    """The bits most weights and activations have: what the student is called by. None where all of them stay in float."""
    weights = [q.bits for module in weighted_modules(student) if not isinstance(q := module.weight_quantizer, nn.Identity)]
    activations = [quantizer.bits for quantizer in activation_quantizers(student)]
    return {
        "weight_bits": max(weights, key=weights.count, default=None),
        "activation_bits": max(activations, key=activations.count, default=None),
    }
