"""A conditional generator: an image from a random code and a class."""

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn

from vitdfq.synthesis.objective.context import TeacherFacts

CODE_SIZE = 100
CONDITION_SCALE = 2.5  # brings the conditions of losses, about ±0.4, to the scale of codes ~ N(0, 1)
SMALL_SIDE = 64  # images up to this side start from a quarter of it, larger ones from a sixteenth
WIDTHS = (128, 64, 32, 32, 16)  # channels before the first doubling and after each; GDFQ has 128, 128, 64
SPREAD = 0.5  # initial standard deviation of the classes' scales and shifts; GDFQ initializes all classes alike
EPS = 0.8  # of the norms after convolutions, as in GDFQ


class ClassNorm(nn.Module):
    """Batch normalization with a scale and a shift for each class."""

    def __init__(self, channels: int, num_classes: int, rng: torch.Generator, eps: float = EPS) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=eps, affine=False)
        self.scale = nn.Parameter(1 + SPREAD * torch.randn(num_classes, channels, generator=rng))
        self.shift = nn.Parameter(SPREAD * torch.randn(num_classes, channels, generator=rng))

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        """(B, C, h, w), classes (B,) -> (B, C, h, w)"""
        return self.norm(x) * self.scale[classes][:, :, None, None] + self.shift[classes][:, :, None, None]


class ConditionalGenerator(nn.Module):
    """Renders images (B, 3, H, W) within the teacher's range from codes (B, 100 + conditions) and classes (B,).

    The form of GDFQ's generator (arXiv 2003.03603): Linear and class norm, nearest-neighbor upsampling by two, each with a 3x3
    convolution, class norm and LeakyReLU, and a last convolution to three channels. The differences:

    - Images of more than 64 pixels start from a sixteenth of their side and are upsampled four times. A quarter of 224 pixels
      would give Linear 40 million weights; a sixteenth gives it 2.5 million. Layers are narrower.
    - The classes' scales and shifts are initialized at random, so that hundreds of steps, not 80,000, separate the classes.
    - Channels are normalized over the batch, then mapped to the valid range by tanh. GDFQ has tanh first and may leave the range.

    In training mode the norms use the batch's statistics; in eval mode an image depends on its own code and class only.
    """

    def __init__(self, facts: TeacherFacts, num_conditions: int, rng: torch.Generator) -> None:
        super().__init__()
        doublings = 2 if max(facts.image_size) <= SMALL_SIDE else 4
        height, width = facts.image_size
        self.image_size, self.low, self.high = facts.image_size, facts.low, facts.high
        self.start = (WIDTHS[0], -(-height // 2**doublings), -(-width // 2**doublings))
        size = self.start[0] * self.start[1] * self.start[2]
        self.linear = nn.utils.skip_init(nn.Linear, CODE_SIZE + num_conditions, size)
        num_classes = max(1, facts.num_classes)  # for a teacher that gives features all images are of one class
        self.first_norm = ClassNorm(WIDTHS[0], num_classes, rng, eps=1e-5)
        widths = WIDTHS[: doublings + 1]
        convolutions = [nn.utils.skip_init(nn.Conv2d, *pair, 3, padding=1) for pair in pairwise(widths)]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(ClassNorm(channels, num_classes, rng) for channels in widths[1:])
        self.colors = nn.utils.skip_init(nn.Conv2d, widths[-1], 3, 3, padding=1)
        self.last_norm = nn.BatchNorm2d(3, affine=False)
        for layer in (self.linear, *convolutions, self.colors):  # torch's own initialization reads the global random state
            weight, bias = layer.parameters()
            nn.init.kaiming_normal_(weight, a=0.2, generator=rng)
            nn.init.zeros_(bias)
        self.to(facts.low.device)

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        """Codes (B, 100 + conditions), classes (B,) -> (B, 3, H, W)"""
        x = self.first_norm(self.linear(codes).view(-1, *self.start), classes)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = nn.functional.interpolate(x, scale_factor=2, mode="nearest")
            x = nn.functional.leaky_relu(norm(convolution(x), classes), 0.2)
        x = self.last_norm(self.colors(x))[:, :, : self.image_size[0], : self.image_size[1]]
        middle, reach = (self.high + self.low) / 2, (self.high - self.low) / 2
        return middle + reach * torch.tanh((x - middle) / reach)  # slope 1 at the middle of the range


@torch.no_grad()
def estimate_norm_statistics(generator: ConditionalGenerator, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Replace the norms' running statistics by means over batches of (codes, classes); then freeze it in eval mode."""
    norms = [module for module in generator.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean; running statistics are those of earlier steps' weights
    for codes, classes in batches:
        generator(codes, classes)
    generator.eval().requires_grad_(False)
