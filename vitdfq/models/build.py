"""Build a timm model, open it, and describe it by the few JSON values that build it again."""

import copy
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from vitdfq.common.errors import InputError, VitdfqError, one_line
from vitdfq.common.lookup import did_you_mean
from vitdfq.models.families import open_model
from vitdfq.models.image_spec import image_size
from vitdfq.models.untrusted import bounded, check_arguments, short

# Keys of a pretrained_cfg that say where weights come from; they are no part of a structure.
WHERE_FROM = ("file", "url", "source", "state_dict", "hf_hub_filename", "custom_load")


def build(spec: dict[str, Any], most: int | None = None) -> nn.Module:
    """Return the structure that `spec` (a teacher's `model.vitdfq`) describes, opened, untrained; no network, no files.

    Its `state_dict` has the keys and shapes of the teacher's; its own `vitdfq` holds the key "model" only. `most` is how many
    numbers its parameters may have, for a `spec` out of a file; None: one of our own.

    Raises:
        ValueError: this timm does not know the architecture or its arguments.
    """
    model = spec["model"]
    architecture = known_architecture(model["architecture"])
    arguments = {**model["model_args"], "num_classes": model["num_classes"]}
    created = create(architecture, arguments, most=most, pretrained_cfg=copy.deepcopy(model["pretrained_cfg"]))
    return finish(created, model["name"], model["model_args"])


def create(name: str, model_args: dict[str, Any], weights: Path | None = None, *, most: int | None = None, **source: Any) -> Any:
    """Call timm, with weights from this safetensors file or untrained; its complaints come back as one line.

    With `most`, where the arguments may be a stranger's, the model is first built without storage: its parameters may not hold
    more numbers than that.
    """
    check_arguments(model_args)
    try:
        if most is not None:
            with torch.device("meta"), bounded(most):
                timm.create_model(name, pretrained=False, **copy.deepcopy(source), **copy.deepcopy(model_args))
        if weights is not None:  # naming the file leaves timm no choice: some versions prefer a pickle in the same folder
            overlay = {"file": str(weights), "source": "", "url": None, "state_dict": None, "custom_load": False}
            source = {**source, "pretrained_cfg_overlay": overlay}
        return timm.create_model(name, pretrained=weights is not None, **source, **model_args)
    except RuntimeError as error:
        if weights is None:
            raise ValueError(f"timm cannot build {name} with {short(model_args)}: {one_line(error)}") from error
        raise InputError(f"{weights}: the weights do not fit {name}: {one_line(error)}") from error
    except VitdfqError:
        raise
    except Exception as error:  # of timm, about arguments that may be anybody's: whatever it is
        raise ValueError(f"timm cannot build {name} with {short(model_args)}: {one_line(error)}") from error


def finish(model: Any, name: str, model_args: dict[str, Any]) -> Any:
    """Open, freeze and describe a freshly built (or copied) timm model."""
    open_model(model)
    if not model.num_classes or not model.global_pool:
        raise ValueError(f"{name} has no classification head (num_classes 0); choose weights with a classifier")
    channels = next(part for part in model.modules() if isinstance(part, nn.Conv2d)).in_channels
    if channels != 3:
        raise ValueError(f"{name} reads images of {channels} channels; only RGB is supported")
    size = [3, *image_size(model)]
    pretrained_cfg = {key: value for key, value in model.pretrained_cfg.items() if key not in WHERE_FROM}
    if list(pretrained_cfg["input_size"]) != size:  # built for another size than the weights; transforms ask here
        pretrained_cfg["input_size"] = size
        pretrained_cfg.pop("test_input_size", None)
    model.pretrained_cfg = as_json(pretrained_cfg, f"the pretrained_cfg of {name}")
    description = {
        "name": name,
        "architecture": full_name(model.pretrained_cfg),
        "model_args": as_json(model_args, f"the arguments of {name}"),
        "num_classes": model.num_classes,
        "pretrained_cfg": model.pretrained_cfg,
    }
    model.vitdfq = {"model": copy.deepcopy(description)}
    return model.float().eval().requires_grad_(False)


def without_storage(model: nn.Module) -> Any:
    """A copy on the meta device: shapes and types, no numbers."""
    memo: dict[int, Any] = {id(part): nn.Parameter(part.to("meta"), requires_grad=False) for part in model.parameters()}
    memo |= {id(part): part.to("meta") for part in model.buffers()}
    return copy.deepcopy(model, memo)


def require_runs(model: Any) -> None:
    """Let shapes run through a model whose arguments are a stranger's; nothing is computed.

    Raises:
        ValueError: it does not give one row of logits an image.
    """
    try:
        shape = tuple(without_storage(model)(torch.zeros(1, 3, *image_size(model), device="meta")).shape)
    except Exception as error:  # of timm and torch, about anybody's arguments
        raise ValueError(f"the model that it describes does not run: {one_line(error)}") from error
    if shape != (1, model.num_classes):
        raise ValueError(f"the model that it describes gives {shape} for one image, not its {model.num_classes} classes")


def known_architecture(name: str) -> str:
    """Return the architecture of `architecture[.tag]`, or raise ValueError when this timm does not have it."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise ValueError(f"unknown timm model {short(name)}{near} (timm {timm.__version__})")
    return architecture


def full_name(pretrained_cfg: dict[str, Any]) -> str:
    tag = pretrained_cfg.get("tag")
    return f"{pretrained_cfg['architecture']}.{tag}" if tag else pretrained_cfg["architecture"]


def as_json(values: dict[str, Any], what: str) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be plain JSON values (timm takes layers by name): {error}") from None
