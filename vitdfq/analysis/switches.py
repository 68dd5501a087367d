"""A calibrated student of which single quantizers are on, and all others let values pass in float."""

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from vitdfq.quantization.modules import named_sites, named_weighted_modules
from vitdfq.quantization.quantizers.base import Unquantized

WEIGHT = "weight_quantizer"
Part = tuple[str, str]  # name of a site, attribute of one of its quantizers


class Switches:
    """Switches the quantizers of a student, each apart from the others.

    With all of them off the student computes its float function: the weights are those before rounding, and shifts and biases
    that a step of calibration moved cancel each other.

    Args:
        student: calibrated, its weights on their grids. It is changed in place; all quantizers are on at first.
        float_weights: name of a layer -> its weight before rounding, for all layers whose weight is quantized.
    """

    def __init__(self, student: nn.Module, float_weights: Mapping[str, Tensor]) -> None:
        self.student, self.sites = student, named_sites(student)
        self.layers = dict(named_weighted_modules(student))
        self.quantizers = {
            (name, attribute): quantizer
            for name, site in self.sites.items()
            for attribute, quantizer in site.quantizers.items()
            if quantizer.bits is not None
        }
        quantized = [name for name, attribute in self.quantizers if attribute == WEIGHT]
        self.float_weights = {name: float_weights[name] for name in quantized}
        self.quantized_weights = {name: self.layers[name].weight.detach().clone() for name in quantized}

    def bits_of(self, site: str) -> dict[str, int]:
        """The bits of a site's quantizers: "weight", "input", "left", "right"."""
        bits = {attribute: self.quantizers[site, attribute].bits for _, attribute in self.parts_of([site])}
        return {attribute.removesuffix("_quantizer"): count for attribute, count in bits.items() if count is not None}

    @property
    def parts(self) -> list[Part]:
        """All quantizers that can be switched, in the order of the sites."""
        return list(self.quantizers)

    def parts_of(self, sites: Collection[str]) -> list[Part]:
        """The quantizers of these sites."""
        return [part for part in self.quantizers if part[0] in sites]

    def only(self, on: Collection[Part]) -> None:
        """Switch these quantizers on and all others off."""
        for (name, attribute), quantizer in self.quantizers.items():
            is_on = (name, attribute) in on
            if attribute == WEIGHT:
                self.put_weight(name, (self.quantized_weights if is_on else self.float_weights)[name])
            else:
                setattr(self.sites[name], attribute, quantizer if is_on else Unquantized())

    @torch.no_grad()
    def put_weight(self, layer: str, weight: Tensor) -> None:
        """Let a layer multiply by this weight, as it is, until its quantizer is switched."""
        self.layers[layer].weight.copy_(weight)
