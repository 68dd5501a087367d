"""What a loss is, and what it sees."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models import attention_sites, image_range, image_size
from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.jitter import STILL, Jitter
from vitdfq.synthesis.seeds import generator

Draws = dict[str, Tensor]
"""What a loss drew before the first step: of one view, or stacked over the views of a batch, view first."""


@dataclass(frozen=True)
class TeacherFacts:
    """What synthesis needs to know of a teacher before it runs it."""

    image_size: tuple[int, int]  # (height, width)
    num_classes: int
    sites: list[AttentionSite]
    low: Tensor  # (1, 3, 1, 1): the normalised value of black in each channel
    high: Tensor  # (1, 3, 1, 1): the normalised value of white
    norms: dict[str, nn.Module] = field(default_factory=dict)  # LayerNorms and BatchNorms by name, in the model's order

    @staticmethod
    def of(teacher: nn.Module) -> "TeacherFacts":
        low, high = image_range(teacher)
        num_classes = int(getattr(teacher, "num_classes", 0))
        if num_classes < 2:
            raise ValueError(f"synthesis needs a teacher that tells classes apart, this one has {num_classes}")
        kinds = (nn.LayerNorm, nn.modules.batchnorm._BatchNorm)
        norms = {name: part for name, part in teacher.named_modules() if isinstance(part, kinds)}
        return TeacherFacts(image_size(teacher), num_classes, attention_sites(teacher), low, high, norms)


@dataclass(frozen=True)
class Pass:
    """What one run of a network on B views gave."""

    images: Tensor  # (B, 3, H, W), normalised, as fed
    logits: Tensor  # (B, C)
    features: Tensor  # (B, D), what the head reads
    recorded: dict[str, Tensor]  # outputs and inputs of submodules that the losses listen to, by name


@dataclass(frozen=True)
class SynthContext(Pass):
    """What every loss sees: the teacher's pass over B views (whole images, or crops of their regions), and what belongs to it."""

    targets: Tensor  # (B, C), soft targets; each row sums to 1
    facts: TeacherFacts
    drawn: dict[str, Draws]  # loss name -> what its `draw` returned, stacked: (B, ...)
    indices: list[int]  # (B,) number of the image that each view shows
    places: list[int]  # (B,) 0: the whole image, k: a crop of its k-th region
    step: int
    steps: int
    seed: int = 0
    jitter: Jitter = STILL  # what was done to the image (or crop) before it was fed
    kept: Tensor | None = None  # (B, k) numbers of the patches that were shown, ascending; None: all
    boxes: Tensor | None = None  # (B, 4) top, left, height, width of the crop that was enlarged to the whole size
    passes: dict[str, list[Pass]] = field(default_factory=dict)  # loss name -> the further passes it asked for
    codes: Tensor | None = None  # (B, 100) the random codes that a generator painted the images from; None: it is no generator

    @property
    def sites(self) -> list[AttentionSite]:
        """All attention sites of the teacher, in order of depth."""
        return self.facts.sites

    @property
    def num_blocks(self) -> int:
        return 1 + max(site.depth for site in self.sites)

    def generators(self, purpose: str) -> list[torch.Generator]:
        """A random stream of its own for each view at this step, so that no image depends on its batch."""
        views = zip(self.indices, self.places, strict=True)
        return [generator(self.seed, purpose, index, place, self.step) for index, place in views]


def nothing(facts: TeacherFacts) -> list[str]:
    return []


def never(facts: TeacherFacts) -> bool:
    return False


def always(facts: TeacherFacts) -> bool:
    return True


@dataclass(frozen=True)
class Loss:
    """A synthesis loss.

    `function(ctx, **options) -> (B,)` gives one value a view. An image shall not depend on its batch; a loss that compares
    images says so, of all teachers or of some: `compares(facts) -> bool`.
    `listens(facts) -> names` names submodules whose outputs (with ":input" behind the name: inputs) it needs of every pass,
    see `vitdfq.models.record`; all other attention runs fused.
    `draw(rng, facts, **options) -> dict of tensors` draws what stays fixed for one view through the run.
    `passes(ctx, networks, **options) -> list of Pass` runs the networks again; the loss finds the result in `ctx.passes`.
    `stream` names the random stream of its draws, by default the loss's own name; a renamed loss keeps its stream here, so that
    its images keep their bytes.
    `condition` names one of its draws that a generator is told beside the class, so that it can do as the loss asks.
    """

    function: Callable[..., Tensor]
    listens: Callable[[TeacherFacts], list[str]] = nothing
    draw: Callable[..., Draws] | None = None
    passes: Callable[..., list[Pass]] | None = None
    compares: Callable[[TeacherFacts], bool] = never
    condition: str | None = None
    stream: str | None = None

    def needs(self) -> list[tuple[Callable[..., Any], int]]:
        """The functions that share the loss's options, each with the number of arguments that the engine gives."""
        return [(self.function, 1)] + [(part, 2) for part in (self.draw, self.passes) if part is not None]
