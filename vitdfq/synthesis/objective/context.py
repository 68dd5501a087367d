"""What a loss is, and the context that it reads."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models import attention_sites, gives, image_range, image_size
from vitdfq.models.family import AttentionSite
from vitdfq.synthesis.objective.jitter import STILL, Jitter
from vitdfq.synthesis.seeds import generator

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

Draws = dict[str, Tensor]
"""The random draws of a loss, made before the first step: of one view, or stacked over the views of a batch, views first."""


@dataclass(frozen=True)
class TeacherFacts:
    """Facts of a teacher that synthesis needs before it runs the teacher."""

    image_size: tuple[int, int]  # (height, width)
    num_classes: int  # 0 where the teacher gives features
    sites: list[AttentionSite]
    low: Tensor  # (1, 3, 1, 1): the normalized value of black per channel
    high: Tensor  # (1, 3, 1, 1): the normalized value of white per channel
    norms: dict[str, nn.Module] = field(default_factory=dict)  # LayerNorms and BatchNorms by name, in the model's order

    @staticmethod
    def of(teacher: nn.Module) -> "TeacherFacts":
        """Read the facts of a teacher."""
        low, high = image_range(teacher)
        num_classes = int(getattr(teacher, "num_classes", 0)) if gives(teacher) == "classes" else 0
        kinds = (nn.LayerNorm, *BATCH_NORMS)
        norms: dict[str, nn.Module] = {name: part for name, part in teacher.named_modules() if isinstance(part, kinds)}
        return TeacherFacts(image_size(teacher), num_classes, attention_sites(teacher), low, high, norms)


@dataclass(frozen=True)
class Pass:
    """The result of one forward pass of a network over B views."""

    images: Tensor  # (B, 3, H, W), normalized, the input of the pass
    outputs: Tensor  # (B, C): logits of classes; where the network gives features, an embedding or pooled features
    features: Tensor  # (B, D), the input of the head; the mean over tokens where the network does not pool
    recorded: dict[str, Tensor]  # outputs and inputs of the submodules that the losses listen to, by name
    has_classes: bool = field(default=True, kw_only=True)

    @property
    def logits(self) -> Tensor:
        """The logits (B, C), for losses that compare classes.

        Raises:
            ValueError: the network gives features.
        """
        if not self.has_classes:
            raise ValueError("a loss reads logits, and the teacher gives features: `outputs` and `features` are what it gives")
        return self.outputs


@dataclass(frozen=True)
class SynthContext(Pass):
    """The input of every loss: the teacher's pass over B views (whole images, or crops of their regions), and their targets."""

    targets: Tensor  # (B, C), soft targets; each row sums to 1; C is 0 where the teacher gives features
    facts: TeacherFacts
    drawn: dict[str, Draws]  # loss name -> result of its `draw`, stacked: (B, ...)
    indices: list[int]  # (B,) index of each view's image
    places: list[int]  # (B,) 0: the whole image, k: a crop of its k-th region
    step: int
    steps: int
    seed: int = 0
    jitter: Jitter = STILL  # applied to the image (or crop) before the pass
    kept_tokens: Tensor | None = None  # (B, k) indices of the patches in the pass, ascending; None: all
    boxes: Tensor | None = None  # (B, 4) top, left, height, width of each enlarged crop; None: whole images
    passes: dict[str, list[Pass]] = field(default_factory=dict)  # loss name -> result of its `passes`
    codes: Tensor | None = None  # (B, 100) the generator's random codes; None: the images have no generator

    @property
    def sites(self) -> list[AttentionSite]:
        """All attention sites of the teacher, in order of depth."""
        return self.facts.sites

    @property
    def num_blocks(self) -> int:
        """The number of the teacher's blocks."""
        return 1 + max(site.depth for site in self.sites)

    def generators(self, purpose: str) -> list[torch.Generator]:
        """Return a random stream for each view at this step: no view's numbers depend on its batch."""
        views = zip(self.indices, self.places, strict=True)
        return [generator(self.seed, purpose, index, place, self.step) for index, place in views]


def nothing(facts: TeacherFacts) -> list[str]:
    """The default of `Loss.listens`."""
    return []


def never(facts: TeacherFacts) -> bool:
    """The default of `Loss.compares`."""
    return False


def always(facts: TeacherFacts) -> bool:
    """`Loss.compares` of a loss that compares images whatever the teacher."""
    return True


@dataclass(frozen=True)
class Loss:
    """A synthesis loss: a pure function of the context, and what the engine prepares for it.

    `function(ctx, **options) -> (B,)` returns one value per view. A view's value must not depend on the other images of the
    batch, except where `compares(facts) -> bool` is true for the teacher; such images are made in groups of a fixed size.
    `listens(facts) -> names` names submodules whose outputs every pass records (with ":input" appended: inputs), see
    `vitdfq.models.record`. All other attention stays fused.
    `draw(rng, facts, **options) -> dict of tensors` makes the draws that stay fixed for one view during the run.
    `passes(ctx, networks, **options) -> list of Pass` runs the networks again; the result is in `ctx.passes`.
    `stream` names the random stream of `draw`, by default the loss's own name. A renamed loss keeps its old stream, so that
    its images keep their bytes.
    `condition` names a draw that a generator gets as additional input beside code and class.
    `needs_classes` says that it compares logits, with targets or with other logits. With a teacher that gives features it is left
    out, or the method is refused, see `vitdfq.synthesis.without_classes`.

    The functions share one set of options; each gets those that its signature names.
    """

    function: Callable[..., Tensor]
    listens: Callable[[TeacherFacts], list[str]] = nothing
    draw: Callable[..., Draws] | None = None
    passes: Callable[..., list[Pass]] | None = None
    compares: Callable[[TeacherFacts], bool] = never
    condition: str | None = None
    stream: str | None = None
    needs_classes: bool = False

    def needs(self) -> list[tuple[Callable[..., Any], int]]:
        """Return the functions that share the loss's options, each with the number of inputs that the engine passes."""
        functions: list[tuple[Callable[..., Any], int]] = [(self.function, 1)]
        return functions + [(function, 2) for function in (self.draw, self.passes) if function is not None]
