"""Synthesis presets by name: procedural images and published methods.

"X-style" in a summary: the paper's equations were not available, and the preset is our reading of its abstract.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitdfq.synthesis.schedule import Schedule


@dataclass(frozen=True)
class StudentTrainingConfig:
    """How a student is trained; `Method.student_training`.

    Rates are relative to each layer's quantization step (see `training.trainable`): .001 of a 4-bit step of a ViT's weights is
    about 2e-5, the size of the rates that papers give.
    """

    after: float = 0.1  # share of the run before the first step: a generator's first images carry no information
    lr: float = 1e-3  # of weights, in quantization steps
    scale_lr: float = 1e-4  # of activation scales, relative to each
    temperature: float = 1.0  # GDFQ takes 20 and weighs the divergence by its square, as here
    interpolate: float = 0.0  # share of the training images that are mixtures of two (AGM-style: .5)
    refresh_every: int = 20  # steps between two fits of the ranges in the first half of the run; later they are only trained


@dataclass(frozen=True)
class Method:
    """A preset: which losses, targets, schedule and engine make the images.

    Every field is a keyword of `synthesize` that changes it, except ten that only a preset sets: `summary`, `reading`,
    `generator_losses`, `feature_losses`, `schedule`, `candidates`, `pairs`, `student_training`, `skip_unsuitable` and `rendered`.
    """

    summary: str
    losses: Mapping[str, Mapping[str, Any]]  # name -> {"weight": ..., option: ...}
    steps: int = 1000
    lr: float | None = None  # None: schedule.default_lr of the teacher, or the generator engine's default
    labels: str = "soft"  # a key of targets.labels.LABELS
    label_range: list[float] | None = None  # None: labels.default_label_range of the number of classes
    max_regions: int = 1  # regions with a class of their own per image; 1: whole images only
    start: str = "noise"  # a key of PROCEDURAL: the image before the first step
    parametrization: str = "pixels"  # a key of PARAMETRIZATIONS: the variables that the steps change
    precision: str = "float32"  # a key of PRECISIONS: data type of the networks' matrix products
    prune_at: Sequence[float] = ()  # shares of the run at which the 30 % least attended of the remaining patches are pruned
    engine: str = "images"  # "images": optimize each image; "generator": train a generator that renders any number of them
    student: str | None = None  # bits of a student trained in turn with the generator; None: no student
    group_size: int | None = None  # images per group where images depend on each other, or per generator step; None: the engine's
    mix: Mapping[str, float] = field(default_factory=dict)  # other preset -> share of the images that it makes
    # From here on: set by presets only.
    reading: str = ""  # how the preset differs from its paper, or why it may; the documentation shows it
    generator_losses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # changes to `losses` with a generator
    feature_losses: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict
    )  # in place of `losses`, if the teacher gives features
    schedule: Schedule = field(default_factory=Schedule)
    candidates: int = 1  # without steps: images rendered per image returned, see image_selection.farthest_point
    pairs: bool = False  # images 2i and 2i + 1 have the same classes and draws
    student_training: StudentTrainingConfig = field(default_factory=StudentTrainingConfig)
    skip_unsuitable: bool = False  # presets of `mix` that do not suit the teacher are left out, see teacher_filter
    rendered: str | None = None  # a procedural preset that makes all images in place of this one, if it suits the teacher


DEFAULT_METHOD = "vitdfq"
OWN = "own"  # the method of images that are read from files, `synthesize: {images: PATH}`; it is no preset

SHARED = {"class_confidence": {"weight": 1.0}, "total_variation": {"weight": 0.05}}  # by most presets, beside losses of their own

ABSTRACT = "The equations of the paper were not available to us. The losses are our reading of its abstract."
OUR_SCHEDULE = (
    "The schedule is ours: Adam in two rounds that end at rate 0, one cyclic shift for both axes, a flip. The paper uses AdamW "
    "with one cosine, separate shifts per axis, and fading noise and contrast augmentation."
)

METHODS: dict[str, Method] = {
    "noise": Method("Gaussian noise; the baseline without optimization", losses={}, steps=0),
    "dead_leaves": Method(
        "Dead leaves: overlapping colored shapes (arXiv 2106.05963); the best images without optimization",
        losses={},
        steps=0,
        start="dead_leaves",
    ),
    "far_leaves": Method(
        "Dead leaves selected for diverse teacher features, one of sixteen; without optimization",
        losses={},
        steps=0,
        start="dead_leaves",
        candidates=16,
    ),
    "scenes": Method(
        "Scenes: random lit objects before landscapes, interiors and surfaces, as photographed; without optimization",
        losses={},
        steps=0,
        start="scenes",
    ),
    "vitdfq": Method(
        "Ours: scenes; for teachers to which they are noise AGM-style, PSAQ-ViT and SMI-style images in turn, half dead leaves",
        losses={
            **SHARED,
            "margin_discrepancy": {"weight": 0.5, "after": 0.3},
        },
        steps=100,
        mix={"dead_leaves": 1 / 2, "psaq": 1 / 6, "smi": 1 / 6},
        # Without classes: SARDFQ's attention priors on whole images, beside the PSAQ-ViT images of the mix.
        feature_losses={"attention_prior": {"weight": 100.0}, "total_variation": {"weight": 0.05}},
        skip_unsuitable=True,
        rendered="scenes",
    ),
    "psaq": Method(
        "PSAQ-ViT (arXiv 2203.02250): dissimilar patches, one-hot classes",
        losses={
            "patch_similarity": {"weight": 1.0},
            **SHARED,
        },
        labels="hard",
    ),
    "psaq_v2": Method(
        "PSAQ-ViT V2-style (arXiv 2209.05687, our reading of the abstract, low confidence): dissimilar patches, a student",
        losses={
            "patch_similarity": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "discrepancy": {"weight": 1.0},
        },
        reading=ABSTRACT,
    ),
    "sardfq": Method(
        "SARDFQ (arXiv 2412.16553): attention priors, regions with classes of their own, soft labels",
        losses={
            "attention_prior": {"weight": 100.0},
            **SHARED,
        },
        max_regions=4,
        reading="The code of the paper is not public. The weight 100 of attention_prior is that of a third-party derivative; the "
        "paper searches it from 1 to 1e5 for each model.",
    ),
    "mimiq": Method(
        "MimiQ's losses (arXiv 2407.20021) on our schedule: similar attention heads, one-hot classes",
        losses={
            "head_similarity": {"weight": 1.0},
            "class_confidence": {"weight": 1.0},
            "smoothness": {"weight": 2.5e-5},
        },
        steps=2000,
        lr=0.1,
        labels="hard",
        schedule=Schedule(rolls=(8, 16), warmup=0.0),
        reading=OUR_SCHEDULE,
    ),
    "maskaq": Method(
        "MaskAQ's losses (arXiv 2606.04373) without its student, on our schedule: MimiQ's, and dissimilar attention rows",
        losses={
            "head_similarity": {"weight": 1.0},
            "attention_entropy": {"weight": 1.0},
            "class_confidence": {"weight": 1.0},
            "smoothness": {"weight": 2.5e-5},
        },
        steps=2000,
        lr=0.1,
        labels="hard",
        schedule=Schedule(rolls=(8, 16), warmup=0.0),
        reading=OUR_SCHEDULE,
    ),
    "fdd": Method(
        "FDD (10.1007/978-981-99-8543-2_17): dissimilar patches, classes in low frequencies first, then in higher ones",
        losses={
            "patch_similarity": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "frequency_consistency": {"weight": 1.0},
        },
        labels="hard",
        schedule=Schedule(rolls=(0, 6, 13, 20, 26)),
    ),
    "smi": Method(
        "SMI-style (arXiv 2510.27186): class and smoothness; the least attended patches are pruned during the run",
        losses=SHARED,
        labels="hard",
        prune_at=(0.1, 0.2, 0.3, 0.4),
        reading="Patches are pruned at shares of the run; the paper's code prunes at steps 50 to 300 of 4,000. Its weight of "
        "total_variation is 1e-4.",
    ),
    "ris": Method(
        "RIS-style (our reading of the abstract of arXiv 2310.03661): robust to small perturbations, low label correlation",
        losses={
            **SHARED,
            "perturbation_robustness": {"weight": 1.0, "after": 0.2, "every": 2},
            "label_correlation": {"weight": 0.1},
        },
        labels="low_correlation",
        reading=f"{ABSTRACT} The paper's prior on BatchNorm statistics is left out: LayerNorms store none, and a substitute "
        "would be a guess.",
    ),
    "acq": Method(
        "ACQ-style (our reading of the abstract of arXiv 2301.07266): attention centers, dissimilar pairs, mode consistency",
        losses={
            **SHARED,
            "attention_center": {"weight": 1.0},
            "pair_distance": {"weight": 0.1, "after": 0.1},
            "mode_consistency": {"weight": 10.0, "after": 0.1},
        },
        pairs=True,
        generator_losses={"pair_distance": {"form": "ratio", "weight": 0.01}},  # relative to the distance of the codes
        reading=ABSTRACT,
    ),
    "agm": Method(
        "AGM-style (10.1109/TCSVT.2024.3399311, our reading of the abstract): teacher and student differ by a random margin",
        losses={
            **SHARED,
            "margin_discrepancy": {"weight": 0.5, "after": 0.3},
        },
        student_training=StudentTrainingConfig(interpolate=0.5),  # with engine "generator" and a student
        reading=ABSTRACT,
    ),
    "gznq": Method(
        "GZNQ-style (arXiv 2101.08430, our reading of the abstract): decoder images that match normalization statistics",
        losses={
            "class_confidence": {"weight": 1.0},
            "input_statistics": {"weight": 1.0},
            "statistics_prior": {"weight": 0.1},
        },
        labels="hard",
        parametrization="decoder",
        reading=ABSTRACT,
    ),
    "gdfq": Method(
        "GDFQ's form (arXiv 2003.03603): a generator conditioned on the class, one-hot classes",
        losses=SHARED,
        labels="hard",
        schedule=Schedule(rolls=(15,), warmup=0.1),
        engine="generator",
        reading="GDFQ's second loss matches the statistics that BatchNorms store. It is left out: LayerNorms store none.",
    ),
}
