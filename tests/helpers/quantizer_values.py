"""Values of a suitable distribution for each quantizer, and quantizers fitted to them."""

import torch

from vitdfq.quantization import QUANTIZERS

NAMES = sorted(QUANTIZERS)


def values(name: str, seed: int, size: int = 4000) -> torch.Tensor:
    """Values as of softmax: in [0, 1], with a long tail. For the GELU quantizer outputs of GELU. Both contain 0 and 1."""
    rng = torch.Generator().manual_seed(seed)
    if name == "twin_gelu":
        x = torch.nn.functional.gelu(2 * torch.randn(size, generator=rng))
    else:
        x = torch.rand(size, generator=rng) ** 6
    x[0], x[1] = 0.0, 1.0
    return x


def fitted(name: str, bits: int, x: torch.Tensor):
    quantizer = QUANTIZERS[name](bits)
    quantizer.fit(x)
    return quantizer
