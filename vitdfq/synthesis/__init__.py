"""Images out of a teacher alone.

`synthesize` (engine.py) names a preset of `METHODS`; invert.py optimises pixels against the preset's `LOSSES`,
generate.py a conditional generator, and a student in turn with it where one is asked for (lessons.py). Every
image has random streams of its own (seeds.py), from which come its classes (labels.py), regions (regions.py) and
attention priors (priors.py), collected as views (views.py).
"""

from vitdfq.synthesis.context import Loss, SynthContext, TeacherFacts
from vitdfq.synthesis.engine import synthesize
from vitdfq.synthesis.generate import Trained, train_generator
from vitdfq.synthesis.losses import LOSSES
from vitdfq.synthesis.method import Method
from vitdfq.synthesis.methods import resolve_method
from vitdfq.synthesis.presets import METHODS
from vitdfq.synthesis.quality import quality

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
