"""Painted images are worth showing to a teacher that sees more in them than in noise."""

from dataclasses import replace
from typing import Any

from vitdfq.synthesis.image_selection.farthest_point import procedural_images
from vitdfq.synthesis.image_selection.quality import quality
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.resolve import METHODS

NUM_IMAGES = 32  # of each kind that the teacher is shown
# Share of noise's distance at which a kind counts as seen. Dead leaves: .37 on DINOv2, .93 to .99 on models of small grey images.
SEEN = 0.75


def for_teacher(method: Method, teacher: Any, facts: TeacherFacts, seed: int) -> Method:
    """Return `method`, without the painted presets of its `mix` that are noise to the teacher; the others share their part.

    What the teacher sees is measured by what it makes of the statistics of its LayerNorms, `layer_norm_distance` of `quality`:
    images of the kind that it learned from are nearer than noise. A teacher without LayerNorms takes all.
    """
    if not method.skip_if_noise_to_teacher:
        return method
    seen = {name: share for name, share in method.mix.items() if _sees(teacher, facts, METHODS[name], seed)}
    left = 1 - sum(method.mix.values()) + sum(seen.values())
    return replace(method, mix={name: share / left for name, share in seen.items()})


def _sees(teacher: Any, facts: TeacherFacts, preset: Method, seed: int) -> bool:
    if preset.steps:
        return True
    own, noise = (
        quality(teacher, procedural_images(teacher, facts, kind, NUM_IMAGES, seed))["layer_norm_distance"]
        for kind in (preset, METHODS["noise"])
    )
    return own is None or noise is None or own < SEEN * noise
