"""A synthesis loss of your own, without a change of the package: `python examples/own_loss.py`."""

from torch import Tensor

import vitdfq
from vitdfq.synthesis.objective.context import SynthContext

teacher = vitdfq.load_teacher("zoo:vit")


# [start:loss]
def brightness(ctx: SynthContext, target: float = 0.0) -> Tensor:
    """Return |mean pixel - target| of each view, (B,)."""
    return (ctx.images.mean((1, 2, 3)) - target).abs()


losses = {"brightness": {"function": brightness, "weight": 2.0, "target": 0.5}}  # beside those of the preset
images = vitdfq.synthesize(teacher, method="psaq", num_images=4, steps=10, losses=losses)
# [end:loss]
print(f"mean of the normalized pixels: {images.mean():.2f}")
