"""What the image engine moves: pixels, or the weights of a small decoder that paints all images of a batch."""

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.seeds import generator

BETAS = (0.5, 0.9)  # of Adam on pixels: PSAQ-ViT, arXiv 2203.02250
CODE_CHANNELS = 64
CODE_SHRINK = 16  # the decoder's input is so many times smaller than the image
DECODER_LR = 0.005  # of its weights, where pixels take 1.0


class ImageParametrization(Protocol):
    """The images of one batch as functions of something that learns."""

    shared: ClassVar[bool]  # whether the images of a batch depend on each other

    def images(self) -> list[Tensor]:
        """The images (3, H, W) as they are now, with their gradient history."""
        ...

    def groups(self, lr: float) -> list[dict]:
        """Optimiser groups at the rate `lr` of pixels."""
        ...

    def project(self) -> None:
        """After a step: bring what left the valid range back."""
        ...


class Pixels:
    """Every pixel is free; clamped to the range of valid images."""

    shared = False

    def __init__(self, starts: list[Tensor], indices: Sequence[int], seed: int, facts: TeacherFacts) -> None:
        # A tensor each: Adam skips those without gradient, so an image without crops takes no part in their step.
        self.pixels = [start.requires_grad_() for start in starts]
        self.low, self.high = facts.low[0], facts.high[0]

    def images(self) -> list[Tensor]:
        return list(self.pixels)

    def groups(self, lr: float) -> list[dict]:
        return [{"params": self.pixels, "lr": lr}]

    @torch.no_grad()
    def project(self) -> None:
        for image in self.pixels:
            image.clamp_(self.low, self.high)


class Decoder:
    """A convolutional decoder of fixed random codes, one a batch: what it paints first and easily is smooth and image-like.

    The "deep image prior" (Ulyanov, Vedaldi and Lempitsky, arXiv 1711.10925). Images of a batch share it, so an image depends on
    its batch. The start is not painted: an image begins as the decoder's own.
    """

    shared = True

    def __init__(self, starts: list[Tensor], indices: Sequence[int], seed: int, facts: TeacherFacts) -> None:
        device, (height, width) = facts.low.device, facts.image_size
        shape = (CODE_CHANNELS, -(-height // CODE_SHRINK), -(-width // CODE_SHRINK))
        codes = [torch.randn(shape, generator=generator(seed, "code", index)) for index in indices]
        self.codes = torch.stack(codes).to(device)
        self.size, self.low, self.high = facts.image_size, facts.low, facts.high
        self.network = decoder_network(generator(seed, "decoder", indices[0])).to(device)

    def images(self) -> list[Tensor]:
        painted = self.network(self.codes)[:, :, : self.size[0], : self.size[1]]  # (B, 3, H, W), without a fixed range
        middle, reach = (self.high + self.low) / 2, (self.high - self.low) / 2
        return list(middle + reach * torch.tanh(painted))

    def groups(self, lr: float) -> list[dict]:
        return [{"params": list(self.network.parameters()), "lr": lr * DECODER_LR}]

    def project(self) -> None:
        """tanh keeps images within their range."""


def decoder_network(rng: torch.Generator) -> nn.Module:
    """Four doublings of (nearest, 3x3 convolution, GroupNorm, LeakyReLU), then three channels."""
    layers: list[nn.Module] = []
    for _ in range(4):
        convolution = nn.utils.skip_init(nn.Conv2d, CODE_CHANNELS, CODE_CHANNELS, 3, padding=1)
        layers += [nn.Upsample(scale_factor=2), convolution, nn.GroupNorm(8, CODE_CHANNELS), nn.LeakyReLU(0.2)]
    layers.append(nn.utils.skip_init(nn.Conv2d, CODE_CHANNELS, 3, 3, padding=1))
    network = nn.Sequential(*layers)
    for module in network:
        if isinstance(module, nn.Conv2d):  # by a stream of its own: nn's initialisation reads the global one
            nn.init.kaiming_normal_(module.weight, a=0.2, generator=rng)
            nn.init.zeros_(module.bias)
    return network


PARAMETRIZATIONS: dict[str, type[Pixels] | type[Decoder]] = {
    "pixels": Pixels,
    "decoder": Decoder,
}
