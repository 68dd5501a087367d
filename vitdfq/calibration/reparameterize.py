"""Scale reparameterization: give all channels of a norm's output one range, and undo that in the linears that read it."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, foldable_norms
from vitdfq.common.lookup import lookup
from vitdfq.common.options import check_counts
from vitdfq.models import NormReaders
from vitdfq.quantization.quantizers.uniform import Uniform
from vitdfq.quantization.sample import sampled
from vitdfq.runtime.run import Run

REDUCTIONS = {"median": torch.median, "mean": torch.mean}
SMALLEST = 1e-2  # of the median scale: a channel silent in these images is not blown up without bound
ROWS = 4096  # tokens a channel's range is fitted on


@dataclass(frozen=True)
class ReparameterizeOptions:
    """Options of `reparameterize`.

    Attributes:
        reduce: "median" or "mean", how the layer's s and z follow from the channels'; the mean is the paper's.
        num_images: at most so many of the images are used; ranges need few.

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
    """Change the affine of norms so that one (scale, zero point) suits every channel, and undo it in the readers' weights.

    RepQ-ViT (arXiv 2212.08254). A quantizer per channel is fitted on what the readers see, giving (s_j, z_j); with s, z those
    of the layer, z an integer code, the norm is made to write x_j s/s_j - s (z - z_j), the readers' columns are multiplied by
    s_j/s and their biases take up the shift. The float function stays; `observe` fits the quantizers anew.

    Where zeros are padded behind the norm (Swin), the norm has no bias, or the grid is symmetric, channels are scaled but not
    shifted. Readers whose input stays in float are left alone.

    Args:
        student: changed in place: weights and biases of norms and of their readers.
        teacher: not used; the student's own float function is measured, so that rewrites can follow each other.
        images: (N, 3, H, W).
        options: see `ReparameterizeOptions`.
        run: not used.

    Raises:
        ValueError: a norm without affine, as in rotated models; quantizers that are fitted already.
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
        norm, readers = student.get_submodule(name), [student.get_submodule(reader) for reader in groups[name]]
        common = reduction(scale)
        ratio = scale / common
        norm.weight.div_(ratio)
        if getattr(norm, "bias", None) is not None:
            norm.bias.div_(ratio)
        for reader in readers:
            reader.weight.mul_(ratio)
        if shifted[name]:
            # A whole code in range: were it left between two, real zero and all that is clipped would be no integers.
            zero = reduction(zero_point).round().clamp(0, 2 ** quantizers[name].bits - 1)
            shift = common * (zero - zero_point)
            norm.bias.sub_(shift)
            for reader in readers:
                reader.bias.add_(reader.weight.double() @ shift)


def _input_quantizer(student: nn.Module, readers: tuple[str, ...]) -> nn.Module | None:
    """The first of the readers' input quantizers; None where all of them read floats."""
    quantizers = [student.get_submodule(reader).input_quantizer for reader in readers]
    return next((quantizer for quantizer in quantizers if not isinstance(quantizer, nn.Identity)), None)


def _can_shift(student: nn.Module, site: NormReaders, quantizer: nn.Module) -> bool:
    has_bias = getattr(student.get_submodule(site.norm), "bias", None) is not None
    return site.shifts and has_bias and not getattr(quantizer, "symmetric", False)


def _per_channel(x: Tensor, quantizer: nn.Module, tight: bool) -> tuple[Tensor, Tensor]:
    """Fit a grid of the quantizer's bits to each channel of x (tokens, C); return scale and zero point, each (C,), float64.

    A tight grid need not hold zero: its zero point may lie outside the codes, and is no integer. It is meant to be shifted.
    """
    channels = sampled(x, ROWS).T.contiguous()
    middle = (channels.amin(1, keepdim=True) + channels.amax(1, keepdim=True)) / 2
    middle = middle if tight else torch.zeros_like(middle)
    grid = Uniform(quantizer.bits, shape=middle.shape, symmetric=getattr(quantizer, "symmetric", False)).to(x.device)
    grid.fit(channels - middle)
    scale = torch.maximum(grid.scale.double(), SMALLEST * grid.scale.double().median())
    return scale.flatten(), (grid.zero_point - middle / scale).flatten()
