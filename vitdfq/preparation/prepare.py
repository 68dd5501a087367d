"""prepare(): a copy of a model after named transforms."""

import logging
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from torch import nn

from vitdfq.common.gradients import with_gradients
from vitdfq.common.lookup import lookup
from vitdfq.models import family_of, require_float, warn_if_changed
from vitdfq.models.multiplications import how_opened
from vitdfq.preparation.fold import fold_batch_norm, fold_layer_scale
from vitdfq.preparation.outcome import Outcome, in_one_line
from vitdfq.preparation.rotate import rotate_heads, rotate_mlp, rotate_residual
from vitdfq.preparation.why_not import why_not_heads, why_not_mlp, why_not_residual

logger = logging.getLogger(__name__)

# Each changes a model in place, not the function that it computes, and returns what it did, or why there was nothing to do. The
# answer depends on the structure alone, not on the weights: `load` takes the steps again on an untrained model.
TRANSFORMS: dict[str, Callable[[nn.Module], Outcome]] = {
    "fold_batch_norm": fold_batch_norm,
    "fold_layer_scale": fold_layer_scale,
    "rotate_residual": rotate_residual,
    "rotate_heads": rotate_heads,
    "rotate_mlp": rotate_mlp,
}
ROTATIONS: dict[str, tuple[str, Callable[[nn.Module], str | None]]] = {  # what each rotates, and why it would not
    "rotate_residual": ("the residual stream", why_not_residual),
    "rotate_heads": ("heads", why_not_heads),
    "rotate_mlp": ("MLPs", why_not_mlp),
}


def default_steps(model: nn.Module) -> list[str]:
    """Return the steps that fit: all rotations that do (outlier channels cost most at few bits), after the foldings.

    BatchNorms are folded first, and LayerScale where the rotation of the stream does not fold it. A step that would change
    nothing is not listed.
    """
    rotations = [name for name, (_, why_not) in ROTATIONS.items() if not why_not(model)]
    folds = ["fold_batch_norm"] if family_of(model).batch_norms(model) else []
    if "rotate_residual" not in rotations and family_of(model).layer_scales(model):
        folds.append("fold_layer_scale")
    return folds + rotations


@with_gradients
def prepare(model: nn.Module, *, steps: list[str] | None = None) -> nn.Module:
    """Return a copy of `model` that computes the same function and is easier to quantize.

    Its `vitdfq["prepare"]["steps"]` names the steps that changed something. Its `vitdfq["prepared"]` says in one line what they
    did, which others did nothing, and why; the logger "vitdfq" gets the same line.

    Args:
        model: what `load_teacher` returned; it is not changed.
        steps: names of transforms, applied in order; None means "fold_batch_norm" if there are BatchNorms, then all
            rotations that fit (ViTs, Swin), before them "fold_layer_scale" where the residual stream cannot be rotated.

    Raises:
        ValueError: a model not loaded by this library, or quantized already; `steps` that are no list; an unknown step, or one
            that does not fit the model.
    """
    require_float(model, "prepare")
    warn_if_changed(model, "prepare")
    prepared = prepared_copy(model, steps)
    logger.info(prepared.vitdfq["prepared"])
    return prepared


def prepared_copy(model: nn.Module, steps: list[str] | None = None) -> Any:
    """Return what `prepare` returns, without a line in the log: `load` takes the steps of a checkpoint again.

    Raises:
        ValueError: as `prepare`.
    """
    require_float(model, "prepare")
    if isinstance(steps, str):
        raise ValueError(f"steps is {steps!r}; expected a list such as [{steps!r}]")
    prepared: Any = deepcopy(model)
    names = default_steps(model) if steps is None else steps
    outcomes = [(name, lookup(name, TRANSFORMS, "preparation step")(prepared)) for name in names]
    record = prepared.vitdfq
    earlier = record.get("prepare", {"steps": []})["steps"]  # `load` takes all of them again
    record["prepare"] = {"steps": [*earlier, *(name for name, outcome in outcomes if outcome.changed)]}
    line = in_one_line([outcome for _, outcome in outcomes] + (left_out(model) if steps is None else []))
    line = "; ".join(filter(None, [how_opened(prepared), line or "no preparation: no step was asked for"]))
    record["prepared"] = f"{record['prepared']}; then {line}" if "prepared" in record else line
    return prepared


def left_out(model: nn.Module) -> list[Outcome]:
    """Return the rotations that `default_steps` does not list, and why."""
    reasons = [(what, why_not(model)) for what, why_not in ROTATIONS.values()]
    return [Outcome("rotated", what, f"rotation {reason}") for what, reason in reasons if reason]
