"""Images out of a teacher alone.

`synthesize` (engine.py) names a preset of `METHODS`; invert.py optimises pixels against the preset's `LOSSES`,
generate.py a conditional generator, and a student in turn with it where one is asked for (lessons.py). Every
image has random streams of its own (seeds.py), from which come its classes (labels.py), regions (regions.py) and
attention priors (priors.py), collected as views (views.py).
"""

from vitdfq.synthesis.generator.train import Trained, train_generator
from vitdfq.synthesis.image_selection.quality import quality
from vitdfq.synthesis.losses import LOSSES
from vitdfq.synthesis.objective.context import Loss, SynthContext, TeacherFacts
from vitdfq.synthesis.presets import METHODS, Method
from vitdfq.synthesis.resolve import resolve_method
from vitdfq.synthesis.synthesize import synthesize

__all__ = [
    "LOSSES",
    "METHODS",
    "Loss",
    "Method",
    "SynthContext",
    "TeacherFacts",
    "Trained",
    "quality",
    "resolve_method",
    "synthesize",
    "train_generator",
]
