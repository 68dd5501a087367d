"""Descriptions of a grid for code that computes without its quantizer: integer products, ONNX, the checkpoint."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

PLANE_BITS = 7  # of a non-negative integer in int8
Table = tuple[list[int], float]  # an int8 value for each code, and the real value of one unit


@dataclass(frozen=True)
class Affine:
    """Levels (code - zero_point) · scale for codes 0..2^bits - 1. The tensors are the quantizer's own buffers, not copies.

    Attributes:
        scale, zero_point: () per tensor, (H, 1, 1) per head, (prefix + 1, 1) per prefix token and patches, (C, 1) per channel,
            (C, groups) per group.
        symmetric: the zero point is 2^(bits - 1) everywhere, so that it need not be stored.
        granularity: what one scale stands for: "tensor", "head", "prefix", "channel" or "group".
        group_size: consecutive values of a row that share a scale; None unless the granularity is "group".
    """

    num_planes: ClassVar[int] = 1
    bits: int
    scale: Tensor
    zero_point: Tensor
    symmetric: bool = False
    granularity: str = "tensor"
    group_size: int | None = None


@dataclass(frozen=True)
class TokenAffine:
    """The same levels, with a scale and a zero point for each token, column or matrix. Needs `qparams` of the quantizer.

    Attributes:
        dynamic: from the values' own minimum and maximum; False: calibrated, by the token's position.
    """

    num_planes: ClassVar[int] = 1
    bits: int
    symmetric: bool
    dynamic: bool


@dataclass(frozen=True)
class Octaves:
    """Levels scale · 2^(-code / steps_per_octave); the last code, 2^bits - 1, means zero. Needs `codes` of the quantizer."""

    bits: int
    scale: float
    steps_per_octave: int

    @property
    def num_planes(self) -> int:
        """How many int8 planes hold all octaves: PLANE_BITS powers of two in a plane, planes of their own for each half step."""
        octaves = [len(range(parity, 2**self.bits - 1, self.steps_per_octave)) for parity in range(self.steps_per_octave)]
        return sum(-(-count // PLANE_BITS) for count in octaves)


@dataclass(frozen=True)
class Tables:
    """The level of a code is Σ integers[code] · unit over the tables. Needs `codes` of the quantizer."""

    tables: Sequence[Table]

    @property
    def num_planes(self) -> int:
        return len(self.tables)


@dataclass(frozen=True)
class Twin:
    """Fine levels k / steps · 2^-shift for codes k = 0..steps, then coarse levels k / steps; coarse ones up to 2^-shift, the last
    fine one, are not used. A value has the nearest level, the lower one halfway. Needs `codes` of the quantizer."""

    num_planes: ClassVar[int] = 2
    bits: int
    shift: int

    @property
    def steps(self) -> int:
        return 2 ** (self.bits - 1) - 1

    @property
    def coarse_step(self) -> int:
        """In fine steps, as `boundary`."""
        return 2**self.shift

    @property
    def largest(self) -> int:
        """The level 1, in fine steps."""
        return self.steps * self.coarse_step

    @property
    def boundary(self) -> float:
        """The middle of the last fine level, which is `steps`, and of the first coarse level above it."""
        return (self.steps + (self.steps // self.coarse_step + 1) * self.coarse_step) / 2

    @property
    def tables(self) -> Sequence[Table]:
        """As in `Tables`."""
        steps = list(range(self.steps + 1))
        zeros = [0] * len(steps)
        return [(steps + zeros, 2.0**-self.shift / self.steps), (zeros + steps, 1 / self.steps)]


@dataclass(frozen=True)
class Traced:
    """Its `forward` consists of operators that ONNX has."""


@dataclass(frozen=True)
class Boundaries:
    """A monotone function of each value: levels and the boundaries between them are determined by calling it."""


IntegerForm = Affine | TokenAffine | Octaves | Tables | Twin
OnnxForm = Affine | TokenAffine | Octaves | Twin | Traced | Boundaries


def digits(numbers: Sequence[int], unit: float) -> Tables:
    """Tables for levels numbers[code] · unit, the numbers non-negative: one table for each digit of PLANE_BITS bits."""
    count = -(-max(numbers).bit_length() // PLANE_BITS)
    shifts = [PLANE_BITS * place for place in range(count)]
    return Tables([([number >> shift & 2**PLANE_BITS - 1 for number in numbers], unit * 2.0**shift) for shift in shifts])
