"""Quantized sites: the modules of a student in place of the teacher's Linear, Conv2d and MatMul, each with its quantizers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.quantization.options import bits_name, bits_title
from vitdfq.quantization.quantizers.base import Quantizer


class QuantSite(nn.Module, ABC):
    """A module whose operands are quantized, and its weight if it has one."""

    quantizer_names: ClassVar[tuple[str, ...]]  # attributes that hold quantizers, in the order of registration

    @property
    def quantizers(self) -> dict[str, Quantizer]:
        """All quantizers by attribute name."""
        return {name: getattr(self, name) for name in self.quantizer_names}

    @property
    def operand_quantizers(self) -> dict[str, Quantizer]:
        """The quantizers of activations by attribute name."""
        return {name: quantizer for name, quantizer in self.quantizers.items() if name != "weight_quantizer"}


class QuantWeighted(QuantSite):
    """A layer with a quantized weight (out, ...), whose rows are quantized as (out, inputs), and a quantized input.

    Until `put_weight_on_grid` the weight is quantized at every pass.
    """

    quantizer_names = ("weight_quantizer", "input_quantizer")
    weight: nn.Parameter
    bias: nn.Parameter
    weight_quantizer: Quantizer
    input_quantizer: Quantizer

    def __init__(self, layer: nn.Linear | nn.Conv2d, weight_quantizer: Quantizer, input_quantizer: Quantizer) -> None:
        super().__init__()
        assert layer.bias is not None  # calibration moves biases: `quantize` adds the missing ones
        self.weight, self.bias = layer.weight, layer.bias
        self.weight_quantizer, self.input_quantizer = weight_quantizer, input_quantizer
        self.weight_on_grid = False

    @abstractmethod
    def shifted(self, x: Tensor) -> Tensor:
        """The values that the input quantizer receives for an input `x`."""

    @abstractmethod
    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer's output for a shifted input and a weight, both quantized or not, up to a constant."""

    @abstractmethod
    def input_rows(self, x: Tensor) -> Tensor:
        """The rows (products, inputs) that each row of the weight multiplies, of a shifted input."""

    @abstractmethod
    def column_energy(self) -> Tensor | None:
        """The squared norm (inputs,) of each of the weight's columns; None where columns are not the input's last dimension."""


class QuantLinear(QuantWeighted):
    """Linear with quantized weight (out, in) and input (..., in).

    `input_shift` (in,) is subtracted from the input before quantization; its product with the float weight is part of `bias`. It
    is a zero point with a value for each channel, and zero unless `center` set it. Where a norm or a linear layer writes the
    input, a runtime can subtract it in the bias of that module.
    """

    input_shift: Tensor

    def __init__(self, linear: nn.Linear, weight_quantizer: Quantizer, input_quantizer: Quantizer) -> None:
        super().__init__(linear, weight_quantizer, input_quantizer)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("input_shift", linear.weight.new_zeros(linear.in_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.input_quantizer(self.shifted(x)), quantized_weight(self), self.bias)

    def shifted(self, x: Tensor) -> Tensor:
        return x - self.input_shift

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, weight)

    def input_rows(self, x: Tensor) -> Tensor:
        return x.flatten(0, -2)

    def column_energy(self) -> Tensor:
        return self.weight.square().sum(0)


class QuantConv2d(QuantWeighted):
    """Conv2d with quantized weight and input: the patch embedding."""

    def __init__(self, conv: nn.Conv2d, weight_quantizer: Quantizer, input_quantizer: Quantizer) -> None:
        super().__init__(conv, weight_quantizer, input_quantizer)
        self.stride, self.padding, self.dilation, self.groups = conv.stride, conv.padding, conv.dilation, conv.groups
        self.edges: tuple[int, ...] = getattr(conv, "edges", ())  # zeros around the input, beside `padding`
        self.kernel_size, self.in_channels, self.out_channels = (
            conv.kernel_size,
            conv.in_channels,
            conv.out_channels,
        )  # as timm reads

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(self.input_quantizer(x), quantized_weight(self))

    def shifted(self, x: Tensor) -> Tensor:
        return x

    def multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(self.padded(x), weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def padded(self, x: Tensor) -> Tensor:
        """The input with its edges."""
        return F.pad(x, self.edges) if self.edges else x

    def input_rows(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B · positions · groups, C / groups · kernel area)."""
        assert isinstance(self.padding, tuple)  # of no model here a word such as "same"
        columns = F.unfold(self.padded(x), self.weight.shape[-2:], self.dilation, self.padding, self.stride)
        return columns.transpose(1, 2).unflatten(2, (self.groups, -1)).flatten(0, 2)

    def column_energy(self) -> None:
        return None


class QuantMatMul(QuantSite):
    """Product of two quantized activations, left (..., N, K) @ right (..., K, M).

    `renormalize` divides each output row by the sum of its quantized left row: a softmax row rounded to powers of two sums to
    any value in [2^-1/2, 2^1/2]. That is one division per output row, after the integer product.

    `left_shift` (heads, 1, K) is subtracted from the left operand before quantization; its product with the quantized right
    operand, one row per head, is added to the output. It is a zero point with a value for each channel, and zero unless `center`
    set it.
    """

    quantizer_names = ("left_quantizer", "right_quantizer")
    left_shift: Tensor | None
    left_quantizer: Quantizer
    right_quantizer: Quantizer

    def __init__(
        self,
        left_quantizer: Quantizer,
        right_quantizer: Quantizer,
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
        """The product of operands that are quantized already, without the shift's part."""
        product = left @ right
        return product / left.sum(-1, keepdim=True).clamp(min=0.1) if self.renormalize else product


def quantized_weight(module: QuantWeighted) -> Tensor:
    """The weight on its grid; quantized at the call until `put_weight_on_grid`."""
    if module.weight_on_grid:
        return module.weight
    rows = module.weight.flatten(1)  # (out, in)
    return module.weight_quantizer(rows).view_as(module.weight)


@torch.no_grad()
def put_weight_on_grid(module: QuantWeighted) -> None:
    """Replace the weight by its quantized values: passes use it as it is, until `take_weight_off_grid`."""
    module.weight.copy_(quantized_weight(module))
    module.weight_on_grid = True


def take_weight_off_grid(module: QuantWeighted) -> None:
    """Quantize the weight at every pass again, as a change of it requires: a value on the grid is rounded to itself."""
    module.weight_on_grid = False


def named_sites(model: nn.Module) -> dict[str, QuantSite]:
    """Every quantized site of a model by name, in the order of registration."""
    return {name: part for name, part in model.named_modules() if isinstance(part, QuantSite)}


def activation_quantizers(module: nn.Module) -> list[Quantizer]:
    """The quantizers of all inputs and operands inside `module` that are not left in float, in the order of registration."""
    operands = [quantizer for site in named_sites(module).values() for quantizer in site.operand_quantizers.values()]
    return [quantizer for quantizer in operands if quantizer.bits is not None]


def named_weighted_modules(module: nn.Module) -> list[tuple[str, QuantWeighted]]:
    """Every layer with a quantized weight inside `module`, with its name."""
    return [(name, part) for name, part in module.named_modules() if isinstance(part, QuantWeighted)]


def weighted_modules(module: nn.Module) -> list[QuantWeighted]:
    """Every layer with a quantized weight inside `module`."""
    return [part for _, part in named_weighted_modules(module)]


def state_of(owners: Sequence[nn.Module]) -> dict[str, Tensor]:
    """Copies of all parameters and buffers of the modules, as one dict."""
    return {name: value.clone() for name, value in nn.ModuleList(owners).state_dict().items()}


def restore_state(owners: Sequence[nn.Module], state: dict[str, Tensor]) -> None:
    """Write back what `state_of` returned."""
    nn.ModuleList(owners).load_state_dict(state)


def is_dynamic(student: nn.Module) -> bool:
    """Whether the range of any activation follows its values: such a student is not named like a static one of the same bits."""
    return any(quantizer.is_dynamic for quantizer in activation_quantizers(student))


def mixed_weight_bits(student: nn.Module) -> float | None:
    """The mean bits of a quantized weight, to two digits, of a student with bits by layer; None where most layers have the same.

    Such a student is not named by the most frequent bits. Most: two thirds of the layers; embedding and classifier may differ.
    """
    every = [layer.weight_quantizer.bits for layer in weighted_modules(student) if layer.weight_quantizer.bits is not None]
    if not every or 3 * max(map(every.count, every)) >= 2 * len(every):
        return None
    return round(mean_weight_bits(student), 2)


def mean_weight_bits(student: nn.Module) -> float:
    """The bits of a weight, mean over all that are quantized."""
    layers = [(layer.weight_quantizer.bits, layer.weight.numel()) for layer in weighted_modules(student)]
    quantized = [(bits, count) for bits, count in layers if bits is not None]
    return sum(bits * count for bits, count in quantized) / sum(count for _, count in quantized)


def bits_of(student: nn.Module) -> dict[str, int | None]:
    """The most frequent bits of weights and of activations, by which a student is named. None where all of them are float."""
    weights = [module.weight_quantizer.bits for module in weighted_modules(student) if module.weight_quantizer.bits is not None]
    activations = [quantizer.bits for quantizer in activation_quantizers(student)]
    return {
        "weight_bits": max(weights, key=weights.count, default=None),
        "activation_bits": max(activations, key=activations.count, default=None),
    }


def named_by(student: nn.Module) -> dict[str, Any]:
    """By what, beside its bits, tables name a student: the keyword arguments of `bits_title`."""
    return {"dynamic": is_dynamic(student), "mixed": mixed_weight_bits(student)}


def title_of(student: nn.Module) -> str:
    """A student's bits as tables name them: see `bits_title`."""
    return bits_title(bits_name(**bits_of(student)), **named_by(student))
