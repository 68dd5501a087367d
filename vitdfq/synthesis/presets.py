"""The presets by name: what costs nothing, and published methods; "X-style" where a paper's equations were not available."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vitdfq.synthesis.generator.student_training import StudentTrainingConfig
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
    parametrization: str = "pixels"  # what the steps move
    pairs: bool = False  # images 2i and 2i + 1 get the same classes and draws
    precision: str = "float32"  # of the networks' products
    prune_at: Sequence[float] = ()  # shares of the run at which 30 % of the patches leave it, those looked at least
    of_generator: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # changes to the losses where a generator learns
    engine: str = "images"  # what learns: each image by itself, or a generator that paints any number of them
    student: str | None = None  # bits of a student that learns from the teacher in turn with the generator; None: none does
    lessons: StudentTrainingConfig = field(default_factory=StudentTrainingConfig)  # how it learns
    group_size: int | None = None  # images that depend on each other, where they do, or a generator's step; None: the engine's
    mix: Mapping[str, float] = field(default_factory=dict)  # preset -> share of the images that it makes instead
    skip_if_noise_to_teacher: bool = (
        False  # painted presets of `mix` only for a teacher that sees more in them than in noise; see `teacher_filter`
    )


CLASSES = {"class_confidence": {"weight": 1.0}, "total_variation": {"weight": 0.05}}  # what nearly all of them share

METHODS: dict[str, Method] = {
    "noise": Method("Gaussian noise, the baseline that costs nothing", losses={}, steps=0),
    "dead_leaves": Method(
        "Overlapping coloured shapes (occlusion model of natural images), painted without the model; the best that costs nothing",
        losses={},
        steps=0,
        start="dead_leaves",
    ),
    "far_leaves": Method(
        "Dead leaves that are far apart to the teacher: sixteen are painted for each one kept; no step is taken",
        losses={},
        steps=0,
        start="dead_leaves",
        candidates=16,
    ),
    "vitdfq": Method(
        "Ours: AGM-style, PSAQ-ViT and SMI-style images in turn; half dead leaves if the teacher sees more in them than in noise",
        losses={
            **CLASSES,
            "margin_discrepancy": {"weight": 0.5, "after": 0.3},
        },
        steps=100,
        mix={"dead_leaves": 1 / 2, "psaq": 1 / 6, "smi": 1 / 6},
        skip_if_noise_to_teacher=True,
    ),
    "psaq": Method(
        "PSAQ-ViT (arXiv 2203.02250): diverse patches, one-hot classes",
        losses={
            "patch_similarity": {"weight": 1.0},
            **CLASSES,
        },
        labels="hard",
    ),
    "psaq_v2": Method(
        "PSAQ-ViT V2-style (arXiv 2209.05687, our reading of the abstract, low confidence): diverse patches, against a student",
        losses={
            "patch_similarity": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "discrepancy": {"weight": 1.0},
        },
    ),
    # α1 = 100 is a third-party derivative's; the paper searches 1 to 1e5 for each model.
    "sardfq": Method(
        "SARDFQ (arXiv 2412.16553): attention priors, regions with classes of their own, soft labels",
        losses={
            "attention_prior": {"weight": 100.0},
            **CLASSES,
        },
        max_regions=4,
    ),
    # Both: Adam in two rounds that end at 0 and a flip, where the papers take AdamW in one cosine, shifts of both axes apart, and
    # noise and contrast that fade.
    "mimiq": Method(
        "MimiQ's losses (arXiv 2407.20021) on our schedule: heads of an attention that agree, one-hot classes",
        losses={
            "head_similarity": {"weight": 1.0},
            "class_confidence": {"weight": 1.0},
            "smoothness": {"weight": 2.5e-5},
        },
        steps=2000,
        lr=0.1,
        labels="hard",
        schedule=Schedule(rolls=(8, 16), warmup=0.0),
    ),
    "maskaq": Method(
        "MaskAQ's losses (arXiv 2606.04373) without its student, on our schedule: as MimiQ, and patches that attend differently",
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
    ),
    "fdd": Method(
        "FDD (code ngrxmu/FDD-DFQ-ViT): diverse patches, classes seen in low frequencies first, then in higher ones",
        losses={
            "patch_similarity": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "frequency_consistency": {"weight": 1.0},
        },
        labels="hard",
        schedule=Schedule(rolls=(0, 6, 13, 20, 26)),
    ),
    # Patches leave at shares of the run, where the paper's code takes steps 50 to 300 of 4,000; it also has TV at 1e-4.
    "smi": Method(
        "SMI-style (ICML 2024): class and smoothness, sparse: patches that are hardly looked at leave the run",
        losses=CLASSES,
        labels="hard",
        prune_at=(0.1, 0.2, 0.3, 0.4),
    ),
    # Without a prior on statistics: the paper's is of BatchNorms, and what LayerNorms offer is a guess.
    "ris": Method(
        "RIS-style (our reading of the abstract of arXiv 2310.03661): what survives small changes, unlike labels",
        losses={
            **CLASSES,
            "perturbation_robustness": {"weight": 1.0, "after": 0.2, "every": 2},
            "label_correlation": {"weight": 0.1},
        },
        labels="low_correlation",
    ),
    "acq": Method(
        "ACQ-style (our reading of the abstract of arXiv 2301.07266): attention centers, pairs that differ, the same in training",
        losses={
            **CLASSES,
            "attention_center": {"weight": 1.0},
            "pair_distance": {"weight": 0.1, "after": 0.1},
            "mode_consistency": {"weight": 10.0, "after": 0.1},
        },
        pairs=True,
        of_generator={"pair_distance": {"form": "ratio", "weight": 0.01}},  # a generator's codes say how far apart is enough
    ),
    "agm": Method(
        "AGM-style (10.1109/TCSVT.2024.3399311, our reading of the abstract): student and teacher differ by a random margin",
        losses={
            **CLASSES,
            "margin_discrepancy": {"weight": 0.5, "after": 0.3},
        },
        lessons=StudentTrainingConfig(interpolate=0.5),  # with engine "generator" and a student
    ),
    "gznq": Method(
        "GZNQ-style (arXiv 2101.08430, our reading of the abstract): a decoder's images that match the statistics of norms",
        losses={
            "class_confidence": {"weight": 1.0},
            "input_statistics": {"weight": 1.0},
            "statistics_prior": {"weight": 0.1},
        },
        labels="hard",
        parametrization="decoder",
    ),
    # GDFQ's other term matches the statistics in a teacher's BatchNorms; LayerNorms keep none.
    "gdfq": Method(
        "GDFQ's form (arXiv 2003.03603): a generator conditioned on the class, one-hot classes",
        losses=CLASSES,
        labels="hard",
        schedule=Schedule(rolls=(15,), warmup=0.1),
        engine="generator",
    ),
}
