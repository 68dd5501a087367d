"""prepare(): a copy of a model after named transforms."""

from copy import deepcopy

from torch import nn

from vitdfq.common.lookup import lookup
from vitdfq.models.type_checks import require_float
from vitdfq.preparation.fold_batch_norm import has_batch_norm
from vitdfq.preparation.rotate import why_not_rotatable
from vitdfq.preparation.transforms import TRANSFORMS

ROTATIONS = ["rotate_residual", "rotate_heads", "rotate_mlp"]


def default_steps(model: nn.Module) -> list[str]:
    """All rotations where they fit: outlier channels cost most at few bits. Elsewhere LayerScale is folded; BatchNorm always."""
    folds = ["fold_batch_norm"] if has_batch_norm(model) else []
    return folds + (["fold_layer_scale"] if why_not_rotatable(model) else ROTATIONS)


def prepare(model: nn.Module, *, steps: list[str] | None = None) -> nn.Module:
    """Return a copy of `model` that computes the same function and is easier to quantize.

    Args:
        model: what `load_teacher` returned; it is not touched.
        steps: names of transforms, applied in order; None means all rotations where they fit (ViTs, Swin) and
            ["fold_layer_scale"] elsewhere, after "fold_batch_norm" where there are BatchNorms (LeViT).

    Raises:
        ValueError: a model not loaded by this library, or quantized already; `steps` that are no list; an unknown step, or one
            that does not fit the model.
    """
    require_float(model, "prepare")
    if isinstance(steps, str):
        raise ValueError(f"steps is {steps!r}; expected a list such as [{steps!r}]")
    steps = default_steps(model) if steps is None else steps
    prepared = deepcopy(model)
    for name in steps:
        lookup(name, TRANSFORMS, "preparation step")(prepared)
    earlier = prepared.vitdfq.get("prepare", {"steps": []})["steps"]  # `load` replays all of them
    prepared.vitdfq["prepare"] = {"steps": [*earlier, *steps]}
    return prepared
