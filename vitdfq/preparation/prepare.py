"""prepare(): a copy of a model after named transforms."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn

from vitdfq.common.gradients import with_gradients
from vitdfq.common.lookup import lookup
from vitdfq.models import family_of, require_float, warn_if_changed
from vitdfq.preparation.fold import fold_batch_norm, fold_layer_scale, has_batch_norm
from vitdfq.preparation.rotate import rotate_heads, rotate_mlp, rotate_residual, why_not_rotatable

# Each changes a model in place, not the function that it computes, and returns whether there was something to change. The answer
# depends on the structure alone, not on the weights: `load` takes the steps again on an untrained model.
TRANSFORMS: dict[str, Callable[[nn.Module], bool]] = {
    "fold_batch_norm": fold_batch_norm,
    "fold_layer_scale": fold_layer_scale,
    "rotate_residual": rotate_residual,
    "rotate_heads": rotate_heads,
    "rotate_mlp": rotate_mlp,
}
ROTATIONS = ["rotate_residual", "rotate_heads", "rotate_mlp"]


def default_steps(model: nn.Module) -> list[str]:
    """Return the steps that fit: all rotations (outlier channels cost most at few bits), or else the folding of LayerScale.

    BatchNorms are folded first. A step that would change nothing is not listed.
    """
    folds = ["fold_batch_norm"] if has_batch_norm(model) else []
    if not why_not_rotatable(model):
        return folds + ROTATIONS
    return folds + (["fold_layer_scale"] if family_of(model).layer_scales(model) else [])


@with_gradients
def prepare(model: nn.Module, *, steps: list[str] | None = None) -> nn.Module:
    """Return a copy of `model` that computes the same function and is easier to quantize.

    Its `vitdfq["prepare"]["steps"]` names the steps that changed something: a step with nothing to fold is left out.

    Args:
        model: what `load_teacher` returned; it is not changed.
        steps: names of transforms, applied in order; None means all rotations where they fit (ViTs, Swin), elsewhere
            "fold_layer_scale" if there is a LayerScale; before them "fold_batch_norm" if there are BatchNorms (LeViT).

    Raises:
        ValueError: a model not loaded by this library, or quantized already; `steps` that are no list; an unknown step, or one
            that does not fit the model.
    """
    require_float(model, "prepare")
    warn_if_changed(model, "prepare")
    if isinstance(steps, str):
        raise ValueError(f"steps is {steps!r}; expected a list such as [{steps!r}]")
    prepared: Any = deepcopy(model)
    steps = default_steps(model) if steps is None else steps
    taken = [name for name in steps if lookup(name, TRANSFORMS, "preparation step")(prepared)]
    earlier = prepared.vitdfq.get("prepare", {"steps": []})["steps"]  # `load` takes all of them again
    prepared.vitdfq["prepare"] = {"steps": [*earlier, *taken]}
    return prepared
