"""Wrappers that people put around a model for training or speed, and the model inside."""

from torch import nn

WRAPPERS = {  # type name -> (the attribute that holds the model, how a message calls it)
    "DataParallel": ("module", "DataParallel"),
    "DistributedDataParallel": ("module", "DistributedDataParallel"),
    "AveragedModel": ("module", "AveragedModel"),
    "ModelEma": ("module", "timm's ModelEma"),
    "ModelEmaV2": ("module", "timm's ModelEmaV2"),
    "ModelEmaV3": ("module", "timm's ModelEmaV3"),
    "OptimizedModule": ("_orig_mod", "torch.compile"),
}


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside all wrappers, which share its weights; the model itself where there is none."""
    while (held := wrapper_of(model)) is not None:
        model = getattr(model, held[0])
    return model


def require_unwrapped(model: object, verb: str) -> None:
    """Raise ValueError when the model is in a wrapper; `verb` starts the message."""
    if held := wrapper_of(model):
        attribute, wrapper = held
        raise ValueError(f"{verb} takes the model itself; this one is wrapped by {wrapper}: pass its .{attribute}")


def wrapper_of(model: object) -> tuple[str, str] | None:
    """Return the attribute that holds the model, and the wrapper in words; None where the model is in no wrapper."""
    held = WRAPPERS.get(type(model).__name__)
    return held if held and isinstance(getattr(model, held[0], None), nn.Module) else None
