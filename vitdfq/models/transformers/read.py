"""A folder of `transformers`: its config.json in timm's words, its weights under timm's names."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from timm.models import get_pretrained_cfg

from vitdfq.common.errors import InputError
from vitdfq.models.transformers.config import Config, sides
from vitdfq.models.transformers.images import PREPROCESSOR, read_images
from vitdfq.models.transformers.kinds import KINDS, Kind
from vitdfq.models.transformers.names import Tensors
from vitdfq.models.transformers.timm_wrapper import WRAPPER, read_wrapper
from vitdfq.models.untrusted import short

logger = logging.getLogger(__name__)

KEPT = ("first_conv", "classifier", "pool_size", "fixed_input_size")  # facts of the class, whatever the weights
NOT_CLASSES = ("regression", "multi_label_classification")


class TimmForm(NamedTuple):
    """A checkpoint of transformers as timm builds it: `timm.create_model(architecture, pretrained_cfg=..., **model_args)`."""

    architecture: str
    model_args: dict[str, Any]  # and `norm_eps`, see `vitdfq.models.build.create`
    pretrained_cfg: dict[str, Any]
    tensors: Callable[[Tensors], Tensors]  # transformers' names -> timm's; what is not part of the model is left out
    projects: bool  # the head writes an embedding


def is_transformers(config: dict[str, Any]) -> bool:
    """Whether a config.json is of transformers: it has a model type."""
    return isinstance(config.get("model_type"), str)


def read(folder: Path, config: dict[str, Any], *, img_size: Any = None, headless: bool = False) -> TimmForm:
    """Return what the content of config.json, and the preprocessor_config.json beside it, say in timm's words.

    Args:
        folder: of the checkpoint.
        config: content of its config.json.
        img_size: build it for images of this size; positions are interpolated as transformers does it.
        headless: its head is not used, so that one which timm does not have does not matter.

    Raises:
        InputError: a model type or class that is not read, a value that is not possible, or a head that timm does not have.
    """
    file, name = folder / "config.json", _class_name(folder, config)
    if config["model_type"] == WRAPPER:
        return TimmForm(*read_wrapper(file, config, name), projects=False)
    kind = KINDS.get(config["model_type"])
    if kind is None:
        what = f"is a transformers model of type {short(config['model_type'])} ({name}); types that are read: {', '.join(KINDS)}"
        raise InputError(f"{file}: {what} and {WRAPPER}")
    gives = _gives(file, kind, name, headless)
    if gives == "classes" and not headless and config.get("problem_type") in NOT_CLASSES:
        problem = f"{name} of problem_type {config['problem_type']}: its outputs are no classes, of which an image has one"
        raise InputError(f"{file}: {problem}; num_classes=0 loads its features")
    labels = _labels(file, config) if gives.endswith("classes") else None
    section = config.get("vision_config", config)
    if not isinstance(section, dict):
        raise InputError(f"{file}: vision_config is not a mapping")
    tower = Config(file, section, kind.defaults, gives, len(labels or ()), img_size)
    if gives == "projection":
        tower = replace(tower, num_classes=Config(file, config, kind.defaults, gives, 0).whole("projection_dim"))
    if tower.whole("num_channels") != 3:
        raise InputError(f"{file}: {name} reads images of {tower.whole('num_channels')} channels; only RGB is supported")
    images = read_images(folder)
    if images is None:
        mean, std = kind.normalization
        images = {"mean": mean, "std": std}
        logger.warning(f"{folder}: has no {PREPROCESSOR}; images are taken to be normalized with mean {mean} and std {std}")
    if kind.interpolates and img_size is None and "input_size" in images:
        tower = replace(tower, img_size=_fitting(tower, images["input_size"][1:]))
    structure = kind.structure(tower)
    pretrained_cfg = _pretrained_cfg(structure.architecture, structure.model_args["img_size"], images, tower.num_classes, labels)
    return TimmForm(structure.architecture, structure.model_args, pretrained_cfg, structure.tensors, gives == "projection")


def _class_name(folder: Path, config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise InputError(
            f"{folder / 'config.json'}: is of transformers ({short(config['model_type'])}), but names no architectures"
        )
    return names[0]


def _gives(file: Path, kind: Kind, name: str, headless: bool) -> str:
    """What a class of transformers gives, with the head that timm has."""
    if name in kind.classes:
        return kind.classes[name]
    if kind.no_head and name in kind.no_head:
        if headless:
            return "features"
        raise InputError(
            f"{file}: the head of {name} reads {kind.no_head[name]}, which timm has no head for; num_classes=0 loads its features"
        )
    choices = ", ".join([*kind.classes, *(kind.no_head or ())])
    raise InputError(f"{file}: is a {short(name)}; classes of this type that are read: {choices}")


def _labels(file: Path, config: dict[str, Any]) -> list[str]:
    """The names of the classes; two numbered ones by default, as in transformers."""
    names = config.get("id2label")
    if names is None:
        number = config.get("num_labels", 2)
        if not isinstance(number, int) or not 0 < number < 2**16:
            raise InputError(f"{file}: num_labels is {short(number)}; expected a number of classes")
        return [f"LABEL_{index}" for index in range(number)]
    if not isinstance(names, dict) or not names or set(names) != {str(index) for index in range(len(names))}:
        raise InputError(f"{file}: id2label does not number the classes 0, 1, 2 ...: {short(names)}")
    return [str(names[str(index)]) for index in range(len(names))]


def _fitting(tower: Config, wanted: list[int]) -> int | list[int] | None:
    """The size of the images that the processor makes, where the patches fill it."""
    height, width = wanted
    patch_height, patch_width = sides(tower.size("patch_size"))
    if height % patch_height or width % patch_width:
        return None
    return height if height == width else wanted


def _pretrained_cfg(
    architecture: str, img_size: int | list[int], images: dict[str, Any], num_classes: int, labels: list[str] | None
) -> dict[str, Any]:
    """timm's description of the weights: those of the architecture are others."""
    known = get_pretrained_cfg(architecture)
    facts = {key: value for key, value in known.to_dict().items() if key in KEPT} if known else {}
    fixed = {"architecture": architecture, "num_classes": num_classes, "input_size": [3, *sides(img_size)]}
    return facts | {"crop_pct": 1.0, "interpolation": "bicubic"} | images | fixed | ({"label_names": labels} if labels else {})
