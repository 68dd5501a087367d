"""Scale reparameterization: give all channels of a norm's output one range, and compensate in the layers that read it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, foldable_norms
from vitdfq.common.lookup import lookup
from vitdfq.common.options import check_counts
from vitdfq.models import NormReaders
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.uniform import Uniform
from vitdfq.quantization.sample import sampled
from vitdfq.runtime.run import Run

REDUCTIONS = {"median": torch.median, "mean": torch.mean}
MIN_SCALE = 1e-2  # as a share of the median scale; bounds the amplification of a channel that is zero on these images
MAX_TOKENS = 4096  # on which the range of a channel is fitted


@dataclass(frozen=True)
class ReparameterizeOptions:
    """Options of `reparameterize`.

    Attributes:
        reduce: how the layer's s and z follow from the channels', "median" or "mean"; the paper uses the mean.
        num_images: the number of images used, from the first; ranges need few.

    Raises:
        ValueError: unknown `reduce`.
    """

    reduce: str = "median"
    num_images: int = 64

    def __post_init__(self) -> None:
        check_counts(self, "num_images")
        lookup(self.reduce, REDUCTIONS, "reduce")


@torch.no_grad()
def reparameterize(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    options: ReparameterizeOptions | None = None,
    *,
    run: Run | None = None,
) -> None:
    """Change the affine of norms so that one (scale, zero point) suits every channel, and compensate in the readers' weights.

    RepQ-ViT (arXiv 2212.08254). A quantizer per channel, fitted on the norm's output, gives (s_j, z_j). Let (s, z) be those of
    the layer, z an integer. The norm's new output is x_j s/s_j - s (z - z_j), the readers' columns are multiplied by s_j/s, and
    their biases are corrected for the shift. The float function does not change; `observe` fits the quantizers afterwards.

    Channels are scaled but not shifted where zeros are padded after the norm (Swin), the norm has no bias, or the grid is
    symmetric. Readers whose input is not quantized are not changed.

    Args:
        student: changed in place: weights and biases of norms and of their readers.
        teacher: not used; the student itself is measured without quantizers, so that several such steps can follow each other.
        images: (N, 3, H, W).
        options: see `ReparameterizeOptions`.
        run: not used.

    Raises:
        ValueError: a norm without affine, as in rotated models; the quantizers are fitted already.
    """
    options = options or ReparameterizeOptions()
    reduction = REDUCTIONS[options.reduce]
    sites = {site.norm: site for site in foldable_norms(student, "reparameterize")}
    inputs = {name: _input_quantizer(student, site.readers) for name, site in sites.items()}
    quantizers = {name: quantizer for name, quantizer in inputs.items() if quantizer is not None}
    groups = {name: sites[name].readers for name in quantizers}
    shifted = {name: _can_shift(student, sites[name], quantizers[name]) for name in groups}
    grids = float_inputs(
        student, groups, images[: options.num_images], lambda name, x: _per_channel(x, quantizers[name], tight=shifted[name])
    )
    for name, (scale, zero_point) in grids.items():
        norm: Any = student.get_submodule(name)
        readers: list[Any] = [student.get_submodule(reader) for reader in groups[name]]
        common = reduction(scale)
        ratio = scale / common
        norm.weight.div_(ratio)
        if getattr(norm, "bias", None) is not None:
            norm.bias.div_(ratio)
        for reader in readers:
            reader.weight.mul_(ratio)
        if shifted[name]:
            # An integer code in range; otherwise neither the real value zero nor clipped values would be on the grid.
            zero = reduction(zero_point).round().clamp(0, 2 ** _bits(quantizers[name]) - 1)
            shift = common * (zero - zero_point)
            norm.bias.sub_(shift)
            for reader in readers:
                reader.bias.add_(reader.weight.double() @ shift)


def _input_quantizer(student: Any, readers: tuple[str, ...]) -> Quantizer | None:
    """The first of the readers' input quantizers; None if none of their inputs is quantized."""
    quantizers = [student.get_submodule(reader).input_quantizer for reader in readers]
    return next((quantizer for quantizer in quantizers if quantizer.bits is not None), None)


def _bits(quantizer: Quantizer) -> int:
    """The bits of a quantizer that does quantize."""
    assert quantizer.bits is not None
    return quantizer.bits


def _can_shift(student: nn.Module, site: NormReaders, quantizer: Quantizer) -> bool:
    has_bias = getattr(student.get_submodule(site.norm), "bias", None) is not None
    return site.shifts and has_bias and not quantizer.symmetric


def _per_channel(x: Tensor, quantizer: Quantizer, tight: bool) -> tuple[Tensor, Tensor]:
    """Fit a grid of the quantizer's bits to each channel of x (tokens, C); return scale and zero point, each (C,), float64.

    A tight grid need not contain zero: its zero point may lie outside the codes, and is no integer. It has to be shifted.
    """
    channels = sampled(x, MAX_TOKENS).T.contiguous()
    middle = (channels.amin(1, keepdim=True) + channels.amax(1, keepdim=True)) / 2
    middle = middle if tight else torch.zeros_like(middle)
    grid = Uniform(_bits(quantizer), shape=middle.shape, symmetric=quantizer.symmetric).to(x.device)
    grid.fit(channels - middle)
    scale = torch.maximum(grid.scale.double(), MIN_SCALE * grid.scale.double().median())
    return scale.flatten(), (grid.zero_point - middle / scale).flatten()
