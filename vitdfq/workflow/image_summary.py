"""What metrics.json says about the images of a run."""

from typing import Any

from torch import nn

from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.synthesize import method_for, presets_used


def image_summary(teacher: nn.Module, options: SynthesisOptions, num_images: int, seconds: float) -> dict[str, Any]:
    """Return method, number, steps, seconds, image steps per second and presets of images that `options` made, or read."""
    summary = {"method": options.method, "num_images": num_images}
    if options.images is not None:
        return summary | {"steps": 0, "seconds": 0.0, "image_steps_per_second": None, "presets": []}
    method = method_for(teacher, options)
    # A rate needs steps that each update every image. A step of a generator makes new images, one of a mixture some of them.
    every_step = method.engine == "images" and not method.mix
    rate = round(num_images * method.steps / seconds, 1) if method.steps and every_step and seconds else None
    summary |= {"steps": method.steps, "seconds": seconds, "image_steps_per_second": rate}
    return summary | {"presets": presets_used(teacher, options)}
