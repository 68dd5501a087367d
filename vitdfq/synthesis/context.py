"""What a loss is, and what it sees."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from vitdfq.models import attention_sites, image_range, image_size
from vitdfq.models.family import AttentionSite

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

    @staticmethod
    def of(teacher: nn.Module) -> "TeacherFacts":
        low, high = image_range(teacher)
        num_classes = int(getattr(teacher, "num_classes", 0))
        if num_classes < 2:
            raise ValueError(f"synthesis needs a teacher that tells classes apart, this one has {num_classes}")
        return TeacherFacts(image_size(teacher), num_classes, attention_sites(teacher), low, high)


@dataclass(frozen=True)
class SynthContext:
    """What every loss sees of one forward pass over B views (whole images, or crops of their regions)."""

    images: Tensor  # (B, 3, H, W), normalised, as fed to the teacher: after crop, roll and flip
    targets: Tensor  # (B, C), soft targets; each row sums to 1
    logits: Tensor  # (B, C), the teacher's
    recorded: dict[str, Tensor]  # outputs the losses asked for, by submodule name: "blocks.3.attn.softmax"
    sites: list[AttentionSite]  # all attention sites of the teacher, in order of depth
    drawn: dict[str, Draws]  # loss name -> what its `draw` returned, stacked: (B, ...)
    step: int
    steps: int

    @property
    def num_blocks(self) -> int:
        return 1 + max(site.depth for site in self.sites)


def every(sites: list[AttentionSite]) -> list[AttentionSite]:
    return sites


@dataclass(frozen=True)
class Loss:
    """A synthesis loss.

    `function(ctx, **options) -> (B,)` gives one value a view, so that an image never depends on its batch.
    `sites` names the attention outputs it listens to: "softmax", (B·num_windows, H, N, N), and "av", (B·num_windows, H,
    N, d); `where` says at which attention sites. All other attention runs fused.
    `draw(rng, facts, **options) -> dict of tensors` draws what stays fixed for one view through the run.
    """

    function: Callable[..., Tensor]
    sites: tuple[str, ...] = ()
    where: Callable[[list[AttentionSite]], list[AttentionSite]] = every
    draw: Callable[..., Draws] | None = None

    def recorded_names(self, sites: list[AttentionSite]) -> list[str]:
        return [f"{site.name}.{output}" for site in self.where(sites) for output in self.sites]
