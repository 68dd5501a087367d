"""Image parametrizations: the variables that the image engine optimizes, pixels or the weights of a small decoder."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.seeds import generator

BETAS = (0.5, 0.9)  # of Adam on pixels: PSAQ-ViT, arXiv 2203.02250
CODE_CHANNELS = 64
CODE_SHRINK = 16  # ratio of the image's side to that of the decoder's input
DECODER_LR = 0.005  # learning rate of its weights, relative to that of pixels


class ImageParametrization(Protocol):
    """The images of one batch as functions of the optimizer's variables."""

    shared: ClassVar[bool]  # whether the images of a batch depend on each other

    def images(self) -> list[Tensor]:
        """Return the current images, (3, H, W) each, with their gradient history."""
        ...

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups for a learning rate `lr` of pixels."""
        ...

    def project(self) -> None:
        """After a step: project the images back to the valid range."""
        ...


class Pixels:
    """Every pixel is a variable, clamped to the range of valid images."""

    shared: ClassVar[bool] = False

    def __init__(self, starts: list[Tensor], indices: Sequence[int], seed: int, facts: TeacherFacts) -> None:
        # One tensor per image: Adam skips those without gradient, so that an image without crops is not moved by a step on crops.
        self.pixels = [start.requires_grad_() for start in starts]
        self.low, self.high = facts.low[0], facts.high[0]

    def images(self) -> list[Tensor]:
        """Return the pixels themselves."""
        return list(self.pixels)

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one group of all images."""
        return [{"params": self.pixels, "lr": lr}]

    @torch.no_grad()
    def project(self) -> None:
        """Clamp to the teacher's range."""
        for image in self.pixels:
            image.clamp_(self.low, self.high)


class Decoder:
    """A convolutional decoder of fixed random codes, shared by a batch; its weights are the variables.

    The "deep image prior" (Ulyanov, Vedaldi and Lempitsky, arXiv 1711.10925): such a network renders smooth, image-like
    structure first. An image depends on its batch. `starts` are not used: images start as the decoder's initial output.
    """

    shared: ClassVar[bool] = True

    def __init__(self, starts: list[Tensor], indices: Sequence[int], seed: int, facts: TeacherFacts) -> None:
        device, (height, width) = facts.low.device, facts.image_size
        shape = (CODE_CHANNELS, -(-height // CODE_SHRINK), -(-width // CODE_SHRINK))
        codes = [torch.randn(shape, generator=generator(seed, "code", index)) for index in indices]
        self.codes = torch.stack(codes).to(device)
        self.size, self.low, self.high = facts.image_size, facts.low, facts.high
        self.network = decoder_network(generator(seed, "decoder", indices[0])).to(device)

    def images(self) -> list[Tensor]:
        """Run the decoder."""
        output = self.network(self.codes)[:, :, : self.size[0], : self.size[1]]  # (B, 3, H, W), unbounded
        middle, reach = (self.high + self.low) / 2, (self.high - self.low) / 2
        return list(middle + reach * torch.tanh(output))

    def groups(self, lr: float) -> list[dict[str, Any]]:
        """Return one group of all weights."""
        return [{"params": list(self.network.parameters()), "lr": lr * DECODER_LR}]

    def project(self) -> None:
        """Nothing to do: tanh keeps images within the range."""


def decoder_network(rng: torch.Generator) -> nn.Module:
    """Return four blocks of upsampling by two, 3x3 convolution, GroupNorm and LeakyReLU, and a convolution to three channels."""

    def convolution(channels: int) -> nn.Module:
        # Without torch's own initialization, which reads the global random state.
        layer = nn.utils.skip_init(nn.Conv2d, CODE_CHANNELS, channels, 3, padding=1)
        weight, bias = layer.parameters()
        nn.init.kaiming_normal_(weight, a=0.2, generator=rng)
        nn.init.zeros_(bias)
        return layer

    layers: list[nn.Module] = []
    for _ in range(4):
        layers += [nn.Upsample(scale_factor=2), convolution(CODE_CHANNELS), nn.GroupNorm(8, CODE_CHANNELS), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, convolution(3))


PARAMETRIZATIONS: dict[str, type[Pixels] | type[Decoder]] = {
    "pixels": Pixels,
    "decoder": Decoder,
}
