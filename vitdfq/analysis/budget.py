"""Budgets, and what the weights of a layer cost of each: bytes of the checkpoint, bits, or bit operations."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from vitdfq.analysis.switches import Switches
from vitdfq.analysis.untrained import with_weight_bits
from vitdfq.checkpoint.size import tensor_bytes
from vitdfq.common.lookup import lookup
from vitdfq.models.multiplications import multiplications_by_site
from vitdfq.models.untrusted import short

FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
AMOUNT = re.compile(r"(\d+(?:\.\d*)?)\s*([kMGT]?)B?")
FLOAT_BITS = 32


@dataclass(frozen=True)
class Costs:
    """What a student costs of one budget: a sum over its layers, plus what no choice of bits changes."""

    by_layer: dict[str, dict[int, float]]
    rest: float

    def of(self, bits: Mapping[str, int]) -> float:
        """The cost of a student whose layers have these bits."""
        return self.rest + sum(self.by_layer[layer][count] for layer, count in bits.items())


@dataclass(frozen=True)
class Budget:
    """One budget: its kind, a name in `BUDGETS`, and the amount in the kind's unit."""

    kind: str
    amount: float

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """Read "size=0.7MB", "average-bits=4" or "bops=1.2G".

        Raises:
            ValueError: an unknown kind, with the choices; an amount that is no positive number.
        """
        kind, equals, amount = text.partition("=")
        grammar = "expected size=0.7MB, average-bits=4 or bops=1.2G"
        if not equals:
            raise ValueError(f"budget {short(text)}: {grammar}")
        lookup(kind, BUDGETS, "budget")
        match = AMOUNT.fullmatch(amount.strip())
        number = float(match[1]) * FACTORS[match[2]] if match else 0.0
        if number <= 0:
            raise ValueError(f"budget {kind}={short(amount)}: not a positive number; {grammar}")
        return cls(kind, number)


def average_bits(switches: Switches, teacher: nn.Module, choices: tuple[int, ...]) -> Costs:
    """Bits of a weight, mean over all weights that are quantized: embedding and classifier among them."""
    total = sum(weight.numel() for weight in switches.float_weights.values())
    return Costs({name: {b: b * weight.numel() / total for b in choices} for name, weight in switches.float_weights.items()}, 0.0)


def bit_operations(switches: Switches, teacher: nn.Module, choices: tuple[int, ...]) -> Costs:
    """Multiplications of one pass for one image, each times the bits of its two operands; 32 for an operand in float."""
    counts, rest = multiplications_by_site(teacher)
    fixed = rest * FLOAT_BITS**2
    by_layer: dict[str, dict[int, float]] = {}
    for site, count in counts.items():
        bits = [quantizer.bits or FLOAT_BITS for quantizer in switches.sites[site].operand_quantizers.values()]
        if site in switches.float_weights:
            by_layer[site] = {b: float(count * b * bits[0]) for b in choices}
        else:
            fixed += count * bits[0] * (bits[1] if len(bits) == 2 else FLOAT_BITS)
    return Costs(by_layer, float(fixed))


def checkpoint_bytes(switches: Switches, teacher: nn.Module, choices: tuple[int, ...]) -> Costs:
    """Bytes of model.safetensors as `save` writes it, at most."""
    layers = list(switches.float_weights)
    by_layer: dict[str, dict[int, float]] = {name: {} for name in layers}
    rest = 0.0
    for bits in choices:
        sizes = tensor_bytes(with_weight_bits(switches.student, teacher, dict.fromkeys(layers, bits)))
        for name in layers:
            by_layer[name][bits] = float(sum(size for tensor, size in sizes.items() if tensor.startswith(f"{name}.weight")))
        rest = max(rest, sum(sizes.values()) - sum(row[bits] for row in by_layer.values()))  # headers differ by some bytes
    return Costs(by_layer, rest)


BUDGETS: dict[str, Callable[[Switches, Any, tuple[int, ...]], Costs]] = {
    "size": checkpoint_bytes,
    "average-bits": average_bits,
    "bops": bit_operations,
}
