"""Whether a module computes what timm's does with the same weights, by its parts: what a checkpoint cannot hold is named."""

from collections.abc import Collection, Mapping
from typing import Any

import timm.layers
from torch import nn
from torch.nn.utils.parametrize import type_before_parametrizations
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from vitdfq.models.block_maps import gives_block_maps
from vitdfq.models.wrappers import wrapper_of

INACTIVE = (  # the identity in eval mode: which of them a module has does not matter
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(timm.layers.DropPath, timm.layers.PatchDropout),
)
FOR_TRAINING = {"training", "distilled_training", "grad_checkpointing", "weight_init_mode", "momentum"}
FOR_SPEED = {"fused_attn"}
IGNORED = FOR_TRAINING | FOR_SPEED | {"num_classes"}  # the classifier's own size is compared
ITSELF = "the module itself"
PLAIN = bool | int | float | str | tuple | None


def first_difference(
    module: nn.Module, expected: nn.Module, stand_ins: Mapping[str, nn.Module] | None = None, *, besides: Collection[str] = ()
) -> str | None:
    """Return the first difference of a module from `expected`, in words, or None.

    Compared are submodules, their types and settings, names and shapes of parameters and buffers, values of buffers that are in
    no `state_dict`, and functions that were replaced. Drop rates, hooks and other weights are no difference.

    Args:
        module: any module; a parametrized layer counts as the layer.
        expected: freshly built.
        stand_ins: name of a submodule -> what is compared in its place.
        besides: names of settings that may differ.
    """
    parts, needed = parts_of(module, stand_ins or {}), parts_of(expected, {})
    for name, part in needed.items():
        if name not in parts:
            return f"it has no {name}"
        if difference := _part_difference(name or ITSELF, parts[name], part, IGNORED.union(besides)):
            return difference
    extra = [name for name in parts if name not in needed and "parametrizations" not in name.split(".")]
    return f"{extra[0]} ({type(parts[extra[0]]).__name__}) is not part of it" if extra else None


def parts_of(module: nn.Module, stand_ins: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Every submodule by every name it has; below a stand-in only its own."""
    parts = dict(module.named_modules(remove_duplicate=False))
    for name, stand_in in stand_ins.items():
        parts = {key: part for key, part in parts.items() if not key.startswith(f"{name}.")}
        parts[name] = stand_in
    return parts


def _part_difference(name: str, part: nn.Module, expected: nn.Module, ignored: Collection[str]) -> str | None:
    if held := wrapper_of(part):
        return f"{name} is wrapped by {held[1]}: put its .{held[0]} in its place"
    if "forward" in vars(part) and not (gives_block_maps(part) and gives_block_maps(expected)):
        return f"{name} has a forward of its own, set after it was built"
    if isinstance(part, INACTIVE) and isinstance(expected, INACTIVE):
        return None
    kind, wanted = type_before_parametrizations(part), type(expected)
    if kind is not wanted and not _is_its_base(kind, wanted):
        qualified = kind.__name__ == wanted.__name__
        return f"{name} is {_kind(part, kind, qualified)}, not {_kind(expected, wanted, qualified)}"
    for key, value in vars(expected).items():
        if key.startswith("_") or key in ignored or key.endswith(("drop_rate", "drop_prob")) or not isinstance(value, PLAIN):
            continue
        given = getattr(part, key, None)
        if isinstance(given, PLAIN) and given != value and given == given:  # NaN is no difference
            key = key if name == ITSELF else f"{name}.{key}"
            return f"{key} is {given!r}, not {value!r}"
    return _tensor_difference(name, part, expected)


def _tensor_difference(name: str, part: nn.Module, expected: nn.Module) -> str | None:
    """The difference of the tensors that a part holds itself; a missing bias is one of zeros."""
    prefix = "" if name == ITSELF else f"{name}."
    for key, value in [*expected.named_parameters(recurse=False), *expected.named_buffers(recurse=False)]:
        given: Any = getattr(part, key, None)
        if given is None and key == "bias" and isinstance(part, nn.Linear):
            continue
        if given is None or given.shape != value.shape:
            return f"{prefix}{key} is {'missing' if given is None else tuple(given.shape)}, not {tuple(value.shape)}"
        stored = key not in expected._non_persistent_buffers_set
        if not stored and not value.is_meta and not (given.to(value) == value).all():
            return f"{prefix}{key}, a buffer that is not in the state_dict, has other values"
    tensors = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
    extra = [key for key, _ in tensors if not hasattr(expected, key)]
    if extra and not _computes_weight(part):
        return f"{prefix}{extra[0]} is not part of it"
    absent = [key for key, value in tensors if getattr(expected, key, value) is None]
    return f"{prefix}{absent[0]} is not part of it" if absent else None


def _is_its_base(kind: type, wanted: type) -> bool:
    """Whether torch's class stands in place of timm's that is made from it, such as LayerNorm."""
    return issubclass(wanted, kind) and kind.__module__.startswith("torch.") and kind is not nn.Module


def _computes_weight(part: nn.Module) -> bool:
    """Whether weight or spectral norm of the old kind, or pruning, computes the weight from other tensors before each pass."""
    return any(isinstance(hook, WeightNorm | SpectralNorm | BasePruningMethod) for hook in part._forward_pre_hooks.values())


def _kind(part: nn.Module, kind: type, qualified: bool) -> str:
    if isinstance(part, nn.Sequential):
        return f"Sequential({', '.join(type(child).__name__ for child in part)})"
    return f"{kind.__module__}.{kind.__name__}" if qualified else kind.__name__
