"""Build a timm model, open it, and describe it by the few JSON values that build it again.

The description is `model.vitdfq`: `{"model": {...}}` for a teacher; `prepare`, `quantize` and `to_integer` add a key each.
"""

import copy
import json
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from vitdfq.common.errors import InputError, VitdfqError, one_line
from vitdfq.common.lookup import did_you_mean
from vitdfq.models.any_timm import is_watched
from vitdfq.models.block_maps import give_block_maps
from vitdfq.models.families import family_of, image_size, open_model
from vitdfq.models.storage import without_storage
from vitdfq.models.untrusted import bounded, check_arguments, fits_memory, short

NORM_EPS = "norm_eps"  # an argument of `create`
MOST_REMOVED = 64  # times the parameters of a model whose last blocks are removed
ORIGIN = ("file", "url", "source", "state_dict", "hf_hub_filename", "custom_load")  # keys of a pretrained_cfg: no structure


def build(spec: dict[str, Any], most: int | None = None) -> nn.Module:
    """Return the structure that `spec` (a teacher's `model.vitdfq`) describes, opened, untrained; no network, no files.

    Its `state_dict` has the keys and shapes of the teacher's; its `vitdfq` holds the key "model" only.

    Args:
        spec: `{"model": {"name", "architecture", "model_args", "num_classes", "pretrained_cfg"}}`, and "family" and "outputs"
            where they were given; other keys are not read.
        most: the largest number of parameters, for a `spec` that comes from a file; None: no limit.

    Raises:
        ValueError: this timm does not know the architecture or its arguments, or the model has more than `most` parameters.
    """
    model = spec["model"]
    architecture = known_architecture(model["architecture"])
    arguments = {**model["model_args"], "num_classes": model["num_classes"]}
    outputs = model.get("outputs")
    if outputs is not None and most is not None:  # blocks behind the last output are built, and removed again
        most = min(MOST_REMOVED * most, fits_memory())
    created = create(architecture, arguments, most=most, pretrained_cfg=copy.deepcopy(model["pretrained_cfg"]))
    teacher = finish(created, model["name"], model["model_args"], model.get("family"))
    return teacher if outputs is None else give_block_maps(teacher, outputs)


def create(name: str, model_args: dict[str, Any], weights: Path | None = None, *, most: int | None = None, **source: Any) -> Any:
    """Call `timm.create_model`, with weights from a safetensors file or untrained.

    With `most`, where the arguments come from a file, the model is first built without storage: it may not have more parameters
    (numbers, not tensors) than that. One argument is not timm's, which takes no such number: `norm_eps` becomes the epsilon of
    every LayerNorm (`transformers` has 1e-12 where timm has 1e-6).

    Raises:
        ValueError: timm's error in one line, or the model is too large.
        InputError: the weights do not fit.
    """
    check_arguments(model_args)
    arguments = dict(model_args)
    eps = arguments.pop(NORM_EPS, None)
    if eps is not None and (not isinstance(eps, float) or not 0 < eps < 1):
        raise ValueError(f"{NORM_EPS} is {short(eps)}; expected a number between 0 and 1")
    model = _create(name, arguments, weights, most, source)
    for part in model.modules() if eps is not None else ():
        if isinstance(part, nn.LayerNorm):
            part.eps = eps
    return model


def _create(name: str, model_args: dict[str, Any], weights: Path | None, most: int | None, source: dict[str, Any]) -> Any:
    try:
        if most is not None:
            with torch.device("meta"), bounded(most):
                timm.create_model(name, pretrained=False, **copy.deepcopy(source), **copy.deepcopy(model_args))
        if weights is not None:  # naming the file leaves timm no choice: some versions prefer a pickle in the same folder
            overlay = {"file": str(weights), "source": "", "url": None, "state_dict": None, "custom_load": False}
            source = {**source, "pretrained_cfg_overlay": overlay}
        if weights is not None and model_args.get("num_classes") == 0:  # timm would miss the place of the head that they have
            rest = {key: value for key, value in model_args.items() if key != "num_classes"}
            model: Any = timm.create_model(name, pretrained=True, **source, **rest)
            model.reset_classifier(0)
            return model
        return timm.create_model(name, pretrained=weights is not None, **source, **model_args)
    except RuntimeError as error:
        if weights is None:
            raise ValueError(f"timm cannot build {name} with {short(model_args)}: {one_line(error)}") from error
        raise InputError(f"{weights}: the weights do not fit {name}: {one_line(error)}") from error
    except VitdfqError:
        raise
    except Exception as error:  # timm raises any type for arguments that do not fit
        raise ValueError(f"timm cannot build {name} with {short(model_args)}: {one_line(error)}") from error


def finish(model: Any, name: str, model_args: dict[str, Any], family: str | None = None) -> Any:
    """Open, freeze and describe a freshly built (or copied) timm model, in place; return it in eval mode and float32.

    Raises:
        ValueError: no family opens it, it classifies each token, it does not read RGB, or its description is not JSON.
    """
    open_model(model, family)
    if model.num_classes and getattr(model, "global_pool", None) == "":  # not every model has the attribute
        raise ValueError(f"{name} classifies each token (global_pool ''); choose a pooling, or num_classes=0 for features")
    channels = next((part.in_channels for part in model.modules() if isinstance(part, nn.Conv2d)), 3)
    if channels != 3 and not is_watched(model):  # a model that was watched took three
        raise ValueError(f"{name} reads images of {channels} channels; only RGB is supported")
    size = [3, *image_size(model)]
    pretrained_cfg = {key: value for key, value in model.pretrained_cfg.items() if key not in ORIGIN}
    if list(pretrained_cfg["input_size"]) != size:  # built for another size than the weights; timm's transforms read this
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
    if family is not None or is_watched(model):  # a later version may have a family of its own for what is watched today
        description["family"] = family or family_of(model).name
    model.vitdfq = {"model": copy.deepcopy(description)}
    return model.float().eval().requires_grad_(False)


def require_runs(model: Any) -> None:
    """Run shapes through a model whose arguments come from a file; nothing is computed.

    Raises:
        ValueError: it does not give one row of logits per image, or without a head features of its width.
    """
    try:
        given = without_storage(model)(torch.zeros(1, 3, *image_size(model), device="meta"))
    except Exception as error:  # timm and torch raise any type for arguments that do not fit
        raise ValueError(f"the model that it describes does not run: {one_line(error)}") from error
    if not isinstance(given, Tensor):  # maps behind blocks: of whatever sizes these have
        return
    shape = tuple(given.shape)
    if model.num_classes and shape != (1, model.num_classes):
        raise ValueError(f"the model that it describes gives {shape} for one image, not its {model.num_classes} classes")
    if not model.num_classes and (len(shape) < 2 or shape[0] != 1 or shape[-1] != model.head_hidden_size):
        raise ValueError(f"the model that it describes gives {shape} for one image, not {model.head_hidden_size} features")


def known_architecture(name: str) -> str:
    """Return the architecture of `architecture[.tag]`, or raise ValueError when this timm does not have it."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise ValueError(f"unknown timm model {short(name)}{near} (timm {timm.__version__})")
    return architecture


def full_name(pretrained_cfg: dict[str, Any]) -> str:
    """Return "architecture.tag", or the architecture alone where there is no tag."""
    tag = pretrained_cfg.get("tag")
    return f"{pretrained_cfg['architecture']}.{tag}" if tag else pretrained_cfg["architecture"]


def as_json(values: dict[str, Any], what: str) -> dict[str, Any]:
    """Return the values as JSON would give them back; ValueError where it cannot hold them."""
    try:
        return json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be plain JSON values (timm takes layers by name): {error}") from None
