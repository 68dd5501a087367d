"""prepare(): a copy of a model after named transforms."""

from copy import deepcopy

from torch import nn

from vitdfq.pick import pick
from vitdfq.preparation.transforms import TRANSFORMS

DEFAULT_STEPS = ["fold_layer_scale"]


def prepare(model: nn.Module, *, steps: list[str] | None = None) -> nn.Module:
    """Return a copy of `model` that computes the same function and is easier to quantize.

    Args:
        model: what `load_teacher` returned; it is not touched.
        steps: names of transforms, applied in order; None means ["fold_layer_scale"].

    Raises:
        ValueError: unknown step.
    """
    steps = DEFAULT_STEPS if steps is None else steps
    prepared = deepcopy(model)
    for name in steps:
        pick(name, TRANSFORMS, "preparation step")(prepared)
    prepared.vitdfq["prepare"] = {"steps": list(steps)}
    return prepared
