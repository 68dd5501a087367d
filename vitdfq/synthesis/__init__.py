"""Calibration images synthesized from a teacher alone, without any real image.

`synthesize` (synthesize.py) resolves a preset of `METHODS` (presets.py, resolve.py) and runs one of two engines:
`inversion/` optimizes pixels, `generator/` trains a conditional generator, optionally in turn with a quantized student.
Both minimize the preset's `LOSSES` (losses/) on views of the images (targets/); objective/ provides what a loss reads.
Procedural images (procedural/) need no optimization. image_selection/ measures images and selects diverse ones.
Every random number comes from a stream named by its purpose (seeds.py).
"""

from vitdfq.synthesis.generator.train import Trained, train_generator
from vitdfq.synthesis.image_selection.quality import quality
from vitdfq.synthesis.losses import LOSSES
from vitdfq.synthesis.objective.context import Loss, SynthContext, TeacherFacts
from vitdfq.synthesis.presets import METHODS, Method
from vitdfq.synthesis.resolve import resolve_method
from vitdfq.synthesis.synthesize import check_classes, procedural_kinds, synthesize

__all__ = [
    "LOSSES",
    "METHODS",
    "Loss",
    "Method",
    "SynthContext",
    "TeacherFacts",
    "Trained",
    "check_classes",
    "procedural_kinds",
    "quality",
    "resolve_method",
    "synthesize",
    "train_generator",
]
