"""What a synthesis method is: weighted losses, labels, regions, a schedule and an engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitdfq.synthesis.lessons import Lessons
from vitdfq.synthesis.schedule import Schedule


@dataclass(frozen=True)
class Method:
    """What `synthesize(method=...)` names. Each field but the first can be changed by a keyword of `synthesize`."""

    summary: str
    losses: Mapping[str, Mapping[str, Any]]  # name -> {"weight": ..., option: ...}
    steps: int = 1000
    lr: float | None = None  # None: schedule.default_lr of the teacher
    labels: str = "soft"
    label_range: list[float] | None = None  # None: labels.default_label_range of the number of classes
    max_regions: int = 1  # 1: whole images only
    schedule: Schedule = field(default_factory=Schedule)
    start: str = "noise"  # what images are before the first step
    candidates: int = 1  # painted for each image that is kept, where there is no step; see `selection`
    canvas: str = "pixels"  # what the steps move
    pairs: bool = False  # images 2i and 2i + 1 get the same classes and draws
    precision: str = "float32"  # of the networks' products
    drop_at: Sequence[float] = ()  # shares of the run at which 30 % of the patches leave it, those looked at least
    of_generator: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # changes to the losses where a generator learns
    engine: str = "images"  # what learns: each image by itself, or a generator that paints any number of them
    student: str | None = None  # bits of a student that learns from the teacher in turn with the generator; None: none does
    lessons: Lessons = field(default_factory=Lessons)  # how it learns
    group_size: int | None = None  # images that depend on each other, where they do, or a generator's step; None: the engine's
    among: Mapping[str, float] = field(default_factory=dict)  # preset -> share of the images that it makes instead
    only_if_seen: bool = False  # painted presets of `among` only for a teacher that sees more in them than in noise; see `seen`
