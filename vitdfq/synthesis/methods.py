"""Presets: a set of weighted losses, labels, regions and a schedule under the name of a published method."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vitdfq.pick import pick
from vitdfq.quantization.policy import parse_bits
from vitdfq.synthesis.canvas import CANVASES
from vitdfq.synthesis.labels import LABELS
from vitdfq.synthesis.lessons import Lessons
from vitdfq.synthesis.networks import PRECISIONS
from vitdfq.synthesis.regions import MAX_REGIONS
from vitdfq.synthesis.schedule import Schedule
from vitdfq.synthesis.starts import STARTS
from vitdfq.synthesis.terms import merge, resolve_terms


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
    canvas: str = "pixels"  # what the steps move
    pairs: bool = False  # images 2i and 2i + 1 get the same classes and draws
    precision: str = "float32"  # of the networks' products
    engine: str = "images"  # what learns: each image by itself, or a generator that paints any number of them
    student: str | None = None  # bits of a student that learns from the teacher in turn with the generator; None: none does
    lessons: Lessons = field(default_factory=Lessons)  # how it learns


ENGINES = {"images": "pixels, one batch after the other", "generator": "a conditional generator"}
OF_PIXELS = ("max_regions", "start", "canvas")  # what says nothing to a generator: it paints whole images of one class

METHODS: dict[str, Method] = {
    "noise": Method("Gaussian noise, the baseline that costs nothing", losses={}, steps=0),
    "dead_leaves": Method(
        "Overlapping coloured shapes (occlusion model of natural images), painted without the model; the best that costs nothing",
        losses={},
        steps=0,
        start="dead_leaves",
    ),
    "psaq": Method(
        "PSAQ-ViT (arXiv 2203.02250): diverse patches, one-hot classes",
        losses={
            "patch_similarity": {"weight": 1.0},
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
        },
        labels="hard",
    ),
    # α1 = 100 is a third-party derivative's; the paper searches 1 to 1e5 for each model.
    "sardfq": Method(
        "SARDFQ (arXiv 2412.16553): attention priors, regions with classes of their own, soft labels",
        losses={
            "attention_prior": {"weight": 100.0},
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
        },
        max_regions=4,
    ),
    # GDFQ's other term matches the statistics in a teacher's BatchNorms; LayerNorms keep none.
    "gdfq": Method(
        "GDFQ's form (arXiv 2003.03603): a generator conditioned on the class, one-hot classes",
        losses={
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
        },
        labels="hard",
        schedule=Schedule(rolls=(15,), warmup=0.1),
        engine="generator",
    ),
}


def resolve_method(method: str, losses: dict | None = None, **changes: Any) -> Method:
    """Return the preset `method`, its losses merged with `losses`, with every change that is not None; all checked.

    Raises:
        ValueError: an unknown method, loss, option or label kind (with the nearest choice), or a number out of range.
    """
    preset = pick(method, METHODS, "synthesis method")
    given = {name: value for name, value in changes.items() if value is not None}
    engine = given.get("engine", preset.engine)
    pick(engine, ENGINES, "engine")
    base = replace(preset, lr=preset.lr if engine == preset.engine else None)  # a rate of pixels is none of a generator
    if engine == "generator":
        base = replace(base, max_regions=1)
        for name in OF_PIXELS:
            if given.get(name, 1) != 1:
                raise ValueError(
                    f"{name} {given[name]!r} goes with engine 'images'; a generator paints whole images of one class"
                )
    resolved = replace(base, losses=merge(preset.losses, losses), **given)
    if resolved.student is not None:
        parse_bits(resolved.student)
        if engine != "generator":
            raise ValueError(f"student {resolved.student!r} goes with engine 'generator': it learns in turn with a generator")
    pick(resolved.labels, LABELS, "label kind")
    pick(resolved.start, STARTS, "start")
    pick(resolved.canvas, CANVASES, "canvas")
    pick(resolved.precision, PRECISIONS, "precision")
    terms = resolve_terms(resolved.losses)
    if resolved.steps < 0:
        raise ValueError(f"steps must not be negative, got {resolved.steps}")
    if resolved.steps > 0 and not terms:
        raise ValueError(f"method {method!r} has no loss, so {resolved.steps} steps would change nothing")
    if resolved.lr is not None and not resolved.lr > 0:
        raise ValueError(f"lr must be positive, got {resolved.lr}")
    if not 1 <= resolved.max_regions <= MAX_REGIONS:
        raise ValueError(f"max_regions must be from 1 to {MAX_REGIONS}, got {resolved.max_regions}")
    label_range = resolved.label_range
    if label_range is not None and (len(label_range) != 2 or label_range[0] > label_range[1]):
        raise ValueError(f"label_range takes [lower, upper] with lower <= upper, got {label_range}")
    return resolved
