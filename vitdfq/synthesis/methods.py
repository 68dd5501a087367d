"""Presets: a set of weighted losses, labels, regions and a schedule under the name of a published method."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vitdfq.pick import pick
from vitdfq.synthesis.canvas import CANVASES
from vitdfq.synthesis.labels import LABELS
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
    drop_at: Sequence[float] = ()  # shares of the run at which 30 % of the patches leave it, those looked at least


METHODS: dict[str, Method] = {
    "agm": Method(
        "AGM-style (10.1109/TCSVT.2024.3399311, our reading of the abstract): student and teacher differ by a random margin",
        losses={
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "margin_discrepancy": {"weight": 0.5, "after": 0.3},
        },
    ),
    "noise": Method("Gaussian noise, the baseline that costs nothing", losses={}, steps=0),
    "dead_leaves": Method(
        "Overlapping coloured shapes (occlusion model of natural images), painted without the model; the best that costs nothing",
        losses={},
        steps=0,
        start="dead_leaves",
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
    "gznq": Method(
        "GZNQ-style (arXiv 2101.08430, our reading of the abstract): a decoder's images that match the statistics of norms",
        losses={
            "class_confidence": {"weight": 1.0},
            "input_statistics": {"weight": 1.0},
            "statistics_prior": {"weight": 0.1},
        },
        labels="hard",
        canvas="decoder",
    ),
    "maskaq": Method(
        "MaskAQ (arXiv 2606.04373) without its student: heads that agree, patches that attend differently, one-hot classes",
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
    "mimiq": Method(
        "MimiQ (arXiv 2407.20021): heads of an attention that agree, one-hot classes",
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
    "psaq": Method(
        "PSAQ-ViT (arXiv 2203.02250): diverse patches, one-hot classes",
        losses={
            "patch_similarity": {"weight": 1.0},
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
        },
        labels="hard",
    ),
    "smi": Method(
        "SMI-style (ICML 2024): class and smoothness, sparse: patches that are hardly looked at leave the run",
        losses={"class_confidence": {"weight": 1.0}, "total_variation": {"weight": 0.05}},
        labels="hard",
        drop_at=(0.1, 0.2, 0.3, 0.4),
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
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
        },
        max_regions=4,
    ),
    "ris": Method(
        "RIS-style (our reading of the abstract of arXiv 2310.03661): what survives small changes, unlike labels",
        losses={
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "perturbation_robustness": {"weight": 1.0, "after": 0.2, "every": 2},
            "label_correlation": {"weight": 0.1},
        },
        labels="low_correlation",
    ),
    "acq": Method(
        "ACQ-style (our reading of the abstract of arXiv 2301.07266): attention centres, pairs that differ, the same in training",
        losses={
            "class_confidence": {"weight": 1.0},
            "total_variation": {"weight": 0.05},
            "attention_centre": {"weight": 1.0},
            "pair_distance": {"weight": 0.1, "after": 0.1},
            "mode_consistency": {"weight": 10.0, "after": 0.1},
        },
        pairs=True,
    ),
}


def resolve_method(method: str, losses: dict | None = None, **changes: Any) -> Method:
    """Return the preset `method`, its losses merged with `losses`, with every change that is not None; all checked.

    Raises:
        ValueError: an unknown method, loss, option or label kind (with the nearest choice), or a number out of range.
    """
    preset = pick(method, METHODS, "synthesis method")
    given = {name: value for name, value in changes.items() if value is not None}
    resolved = replace(preset, losses=merge(preset.losses, losses), **given)
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
    if any(not 0 < share < 1 for share in resolved.drop_at):
        raise ValueError(f"drop_at takes shares of the run between 0 and 1, got {list(resolved.drop_at)}")
    label_range = resolved.label_range
    if label_range is not None and (len(label_range) != 2 or label_range[0] > label_range[1]):
        raise ValueError(f"label_range takes [lower, upper] with lower <= upper, got {label_range}")
    return resolved
