"""Ranges and outliers: what each quantizer of a student receives, and how well it rounds that."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.analysis.errors import sqnr_db
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.switches import WEIGHT
from vitdfq.models.record import hooked
from vitdfq.quantization.quantizers.base import Quantizer


@dataclass(frozen=True)
class ValueRange:
    """The values that one quantizer receives in the float function, shifts subtracted.

    Attributes:
        site, part: "blocks.0.attn.qkv" and "weight", "input", "left" or "right".
        bits: of the quantizer.
        least, largest: of all values.
        peak_to_rms: largest magnitude / root mean square: 1.7 for evenly spread values, 4 to 5 for bell-shaped ones, more with
            outliers.
        channel_ratio: largest magnitude of a channel / that of the median channel: outliers that stand in few channels. Channels
            are the last dimension of activations, the rows of weights.
        sqnr_db: of the rounded values; None: no error.
    """

    site: str
    part: str
    bits: int
    least: float
    largest: float
    peak_to_rms: float
    channel_ratio: float
    sqnr_db: float | None


def value_ranges(passes: HeldOutPasses, num_images: int = 32) -> list[ValueRange]:
    """Return the range of every quantizer, in the order of the sites, on the first held-out images, which pass at once."""
    switches = passes.switches
    found: dict[tuple[str, str], ValueRange] = {}
    for name, rounded in switches.quantized_weights.items():
        rows = switches.float_weights[name].flatten(1)
        quantizer = switches.quantizers[name, WEIGHT]
        found[name, WEIGHT] = _range(name, WEIGHT, quantizer, rows, rounded.flatten(1), rows.abs().amax(1))
    operands = [part for part in switches.parts if part[1] != WEIGHT]
    switches.only([])

    def look(site: str, part: str) -> Callable[[nn.Module, tuple[Tensor]], None]:
        def hook(module: nn.Module, args: tuple[Tensor]) -> None:
            x, quantizer = args[0], switches.quantizers[site, part]
            found[site, part] = _range(site, part, quantizer, x, quantizer(x), x.abs().flatten(0, -2).amax(0))

        return hook

    places = {(site, part): getattr(switches.sites[site], part) for site, part in operands}
    with torch.no_grad(), hooked(module.register_forward_pre_hook(look(*key)) for key, module in places.items()):
        switches.student(passes.images[:num_images].to(passes.device))
    switches.only(switches.parts)
    return [found[key] for key in switches.parts if key in found]


def _range(site: str, part: str, quantizer: Quantizer, x: Tensor, rounded: Tensor, peaks: Tensor) -> ValueRange:
    assert quantizer.bits is not None
    rms, median = x.double().square().mean().sqrt().item(), peaks.median().item()
    peak = peaks.max().item()
    return ValueRange(
        site=site,
        part=part.removesuffix("_quantizer"),
        bits=quantizer.bits,
        least=x.min().item(),
        largest=x.max().item(),
        peak_to_rms=peak / rms if rms else 1.0,
        channel_ratio=peak / median if median else 1.0,
        sqnr_db=sqnr_db(rounded, x),
    )
