"""Load a teacher: by timm name, from the hub, a folder or the zoo, or from a module built with timm."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import nn

from vitdfq.common.errors import InputError, VitdfqError
from vitdfq.common.gradients import with_gradients
from vitdfq.common.hub_connection import fetch
from vitdfq.common.lookup import did_you_mean, lookup
from vitdfq.common.safetensors_io import not_finite
from vitdfq.models.block_maps import give_block_maps
from vitdfq.models.build import NORM_EPS, create, finish, known_architecture, require_runs
from vitdfq.models.fill import fill, misfit
from vitdfq.models.from_module import from_module
from vitdfq.models.other_folders import MARKS
from vitdfq.models.transformers import PREPROCESSOR, is_transformers
from vitdfq.models.transformers import read as read_transformers
from vitdfq.models.untrusted import fits_file, fits_memory
from vitdfq.models.weights import (
    INDEX,
    WEIGHTS,
    check_weights,
    is_file_of_weights,
    read_config,
    read_weights,
    refuse_file,
    weight_files,
)

logger = logging.getLogger(__name__)

ZOO = Path(__file__).parents[1] / "zoo"
FILES = ["config.json", WEIGHTS]  # of timm's repository on the hub: nothing else is downloaded
SHARDS = "model-*-of-*.safetensors"
DESCRIPTIONS = ["config.json", PREPROCESSOR, *MARKS]  # of anyone's repository
SOURCES = ("zoo", "local-dir", "hf-hub")
LONGEST_PATH = 1000  # characters; of a longer one the system would not say whether it is there
NOT_TAKEN = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "features_only", "device", "dtype")


@with_gradients
def load_teacher(
    name: str | os.PathLike[str] | nn.Module,
    *,
    pretrained: bool = True,
    cache_dir: str | None = None,
    family: str | None = None,
    outputs: list[int] | None = None,
    **timm_kwargs: Any,
) -> nn.Module:
    """Load a teacher: a timm model, opened, frozen, in eval mode and float32.

    A repository or folder is one of timm, or of Hugging Face `transformers`: ViT, DeiT, Swin, Swin v2, DINOv2, SigLIP, CLIP
    (`transformers/kinds.py` lists types and classes) and TimmWrapper, whose names and arguments are translated into timm's.

    Args:
        name: `architecture[.tag]`, `hf-hub:owner/repo[@revision]`, `local-dir:PATH` or the path alone (text or `Path`),
            `zoo:NAME`, or a model built with timm, which stays as it is: in any mode and precision, within DataParallel or
            torch.compile, with tied weights, after `reset_classifier`, or with another Linear (and dropout) as classifier. See
            `from_module`.
        pretrained: False leaves a named model at timm's random initialization.
        cache_dir: the hub's cache, if not the usual one.
        family: which of `FAMILIES` opens it; None: the first that can. "any" watches a pass of shapes and knows no architecture.
        outputs: for dense tasks: indexes of blocks from 0, or of stages where the model has them (Swin). The model then gives a
            tuple of the maps behind these, each (B, C, h, w), behind the final norm where there is one for all blocks; blocks
            behind the last of them and the head are removed.
        timm_kwargs: keyword arguments of `timm.create_model` that shape the model, such as `img_size`, or `num_classes=0` for
            features without the head, and `norm_eps`, the epsilon of all LayerNorms; for a module those it was built with, needed
            where timm does not remember them (1.0.31 does).

    Returns:
        timm's model, which maps normalized images (B, 3, H, W) of `image_size(model)` to logits (B, classes), or to features:
        (B, D), and with `global_pool=''` (B, N, D) or (B, H, W, D); `gives(model)` says which. Each attention has the submodules
        `qk`, `softmax` and `av`; the `state_dict` is timm's. `model.vitdfq` describes the structure in JSON values. Half
        precision becomes float32, which holds it exactly. A module stays on its device, everything else is loaded on the CPU.

    Raises:
        ValueError: unknown name, a family that is not supported, arguments that do not fit, no RGB images; a module without
            weights, with weights that are not finite, or changed in a way that no checkpoint can hold.
        InputError: a folder or file is missing, damaged, or a pickle (never opened), or the weights do not fit or are not finite.
        AccessError: the weights cannot be reached and are not in the hub's cache.
    """
    for key in NOT_TAKEN:
        if key in timm_kwargs:
            raise ValueError(f"load_teacher does not take {key}; name a folder (local-dir:PATH) or pass a timm module")
    if outputs is not None and timm_kwargs.get("num_classes"):
        raise ValueError(f"outputs gives maps and no classes: num_classes={timm_kwargs['num_classes']} does not go with it")
    teacher = _whole_teacher(name, pretrained, cache_dir, family, timm_kwargs)
    return teacher if outputs is None else give_block_maps(teacher, outputs)


def _whole_teacher(
    name: str | os.PathLike[str] | nn.Module,
    pretrained: bool,
    cache_dir: str | None,
    family: str | None,
    timm_kwargs: dict[str, Any],
) -> nn.Module:
    """Load a teacher with all its blocks."""
    if isinstance(name, nn.Module):
        return from_module(name, timm_kwargs, family)
    if not isinstance(name, str | os.PathLike):
        advice = ": build the module with timm and fill it, module.load_state_dict(...)" if isinstance(name, Mapping) else ""
        raise ValueError(
            f"load_teacher takes the name of a model, a folder or a timm module, not a {type(name).__name__}{advice}"
        )
    name = with_source(os.fspath(name)) if isinstance(name, str) else f"local-dir:{os.fspath(name)}"
    check_name(name)
    source, colon, place = name.partition(":")
    if not colon:
        return from_timm(name, pretrained, cache_dir, timm_kwargs, family)
    if source == "hf-hub":
        return from_hub(name, place, pretrained, cache_dir, timm_kwargs, family)
    folder = zoo_folder(place) if source == "zoo" else Path(place).expanduser()
    return from_folder(name, folder, pretrained, timm_kwargs, family)


def check_name(name: str) -> None:
    """Check what the name of a teacher shows by itself; no weights are read and nothing is downloaded.

    Raises:
        ValueError: a name that neither timm nor the zoo has, or that names no source.
        InputError: the path of a file of weights, which has to be converted first.
    """
    name = with_source(name)
    source, colon, place = name.partition(":")
    path = Path(place if source == "local-dir" else name).expanduser()
    if source not in ("zoo", "hf-hub") and is_file_of_weights(path):
        refuse_file(path)
    if not colon and not any(sign in name for sign in "/\\"):
        known_architecture(name)
    elif source not in SOURCES or not place:
        raise ValueError(
            f"model name {name!r} looks like a path or a hub repository{did_you_mean(source, SOURCES)}; "
            "write local-dir:PATH, hf-hub:owner/repo or zoo:NAME"
        )
    elif source == "zoo":
        zoo_folder(place)


def zoo_folder(name: str) -> Path:
    """The folder of a model that comes with the package; ValueError with the choices for another name."""
    return lookup(name, {path.parent.name: path.parent for path in ZOO.glob("*/config.json")}, "zoo model")


def with_source(name: str) -> str:
    """The name of a teacher with `local-dir:` before the path of a folder; timm's own names go first."""
    is_path = name.partition(":")[0] not in SOURCES and not timm.is_model(name.partition(".")[0]) and len(name) < LONGEST_PATH
    return f"local-dir:{name}" if is_path and Path(name).expanduser().is_dir() else name


def structure(name: str, *, cache_dir: str | None = None, **timm_kwargs: Any) -> nn.Module:
    """Return what `load_teacher` returns, at random initialization: nothing is downloaded for a timm name.

    The config.json of a hub repository is needed, so it must be in the cache or reachable. Raises as `load_teacher`.
    """
    return load_teacher(name, cache_dir=cache_dir, **{**timm_kwargs, "pretrained": False})


def from_timm(
    name: str, pretrained: bool, cache_dir: str | None, model_args: dict[str, Any], family: str | None = None
) -> nn.Module:
    """Load `architecture[.tag]`, its weights from the hub; a model that cannot be opened is refused before the download."""
    architecture = known_architecture(name)
    tags = timm.list_models(f"{architecture}.*", pretrained=True)
    if "." in name and name not in tags:
        raise ValueError(f"unknown tag in {name!r}{did_you_mean(name, tags)}; timm has: {', '.join(tags) or 'none'}")
    most = fits_memory() if model_args else None
    teacher = finish(create(name, model_args, most=most), name, model_args, family)
    if not pretrained:
        return teacher
    repository = teacher.pretrained_cfg.get("hf_hub_id")
    if not repository:
        raise ValueError(f"timm has no weights for {name!r} on the hub; give a folder with local-dir:PATH")
    require_trained_head(teacher)
    weights = fetch(repository, FILES, cache_dir) / WEIGHTS
    check_weights(weights)
    return finish(create(name, model_args, weights), name, model_args, family)


def from_hub(
    name: str, repository: str, pretrained: bool, cache_dir: str | None, overrides: dict[str, Any], family: str | None = None
) -> nn.Module:
    """Load a repository on the hub; what its small files show to be impossible is refused before its weights are downloaded."""
    described = from_folder(name, fetch(repository, DESCRIPTIONS, cache_dir), False, overrides, family)
    if not pretrained:
        return described
    del described
    return from_folder(name, fetch(repository, [*DESCRIPTIONS, WEIGHTS, INDEX, SHARDS], cache_dir), True, overrides, family)


def from_folder(name: str, folder: Path, pretrained: bool, overrides: dict[str, Any], family: str | None = None) -> nn.Module:
    """Load a folder with config.json and model.safetensors, of timm or transformers; `overrides` replace its arguments."""
    config = read_config(folder)
    try:
        if is_transformers(config):
            return _from_transformers(name, folder, config, pretrained, overrides, family)
        known_architecture(config["architecture"])
        if NORM_EPS in config:
            overrides = {NORM_EPS: config[NORM_EPS], **overrides}
        return _from_folder(name, folder, pretrained, overrides, {**config.get("model_args", {}), **overrides}, family)
    except VitdfqError:
        raise
    except ValueError as error:
        if overrides:  # they may be to blame
            raise
        raise InputError(f"{folder / 'config.json'}: {error}") from error


def _from_folder(
    name: str, folder: Path, pretrained: bool, overrides: dict[str, Any], model_args: dict[str, Any], family: str | None
) -> nn.Module:
    weights = folder / WEIGHTS
    if pretrained:
        check_weights(weights)
    most = fits_file(weights.stat().st_size) if pretrained else fits_memory()
    model = create(f"local-dir:{folder}", overrides, weights if pretrained else None, most=most)
    return _finish_folder(model, name, model_args, family, weights if pretrained else None)


def _from_transformers(
    name: str, folder: Path, config: dict[str, Any], pretrained: bool, overrides: dict[str, Any], family: str | None
) -> nn.Module:
    """Build timm's model of a folder of `transformers`, and fill it with the tensors under timm's names."""
    form = read_transformers(folder, config, img_size=overrides.get("img_size"), headless=overrides.get("num_classes") == 0)
    architecture, classes = known_architecture(form.architecture), form.pretrained_cfg["num_classes"]
    files = weight_files(folder) if pretrained else []
    for note in form.notes if pretrained else ():
        logger.warning(note)
    most = fits_file(sum(file.stat().st_size for file in files)) if pretrained else fits_memory()
    model_args = {**form.model_args, **overrides}
    wanted = overrides.get("num_classes", classes)
    built = {**model_args, "num_classes": wanted or classes}  # with the head that the weights have
    model = create(architecture, built, most=most, pretrained_cfg=form.pretrained_cfg)
    if pretrained and wanted in (0, classes):
        tensors = form.tensors(read_weights(files))
        if wrong := misfit(model, tensors):
            raise InputError(f"{folder}: the weights do not fit {architecture}: {wrong} (in timm's names)")
        fill(model, tensors)
    if wanted == 0:
        model.reset_classifier(0)
    return _finish_folder(model, name, model_args, family, folder if pretrained else None)


def _finish_folder(model: Any, name: str, model_args: dict[str, Any], family: str | None, weights: Path | None) -> nn.Module:
    """Open a model of a folder and check it; `weights`: where its weights came from, None for an untrained one."""
    if name.startswith("hf-hub:"):
        model.pretrained_cfg["hf_hub_id"] = name.removeprefix("hf-hub:")
    teacher = finish(model, name, model_args, family)
    require_runs(teacher)
    if weights is not None:
        require_trained_head(teacher)
        require_finite(teacher, weights)
    return teacher


def require_finite(teacher: nn.Module, weights: Path) -> None:
    """Raise InputError when a tensor of the model holds infinite values or NaN."""
    if name := not_finite(teacher):
        raise InputError(f"{weights}: {name} is not finite")


def require_trained_head(teacher: Any) -> None:
    """Raise ValueError when the weights have another number of classes than the model; no head needs no training."""
    trained, classes = teacher.pretrained_cfg.get("num_classes"), teacher.num_classes
    if classes and classes != trained:
        name = teacher.vitdfq["model"]["name"]
        raise ValueError(f"{name} has weights for {trained} classes; for num_classes={classes} it has no trained head")
