"""A folder of `transformers`: its config.json in timm's words, its weights under timm's names."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from timm.models import get_pretrained_cfg

from vitdfq.common.errors import InputError, one_line
from vitdfq.models.gives import projection_widths
from vitdfq.models.transformers.config import Config, sides
from vitdfq.models.transformers.images import PREPROCESSOR, read_images
from vitdfq.models.transformers.kinds import KINDS, Kind
from vitdfq.models.transformers.names import Tensors
from vitdfq.models.transformers.timm_wrapper import WRAPPER, read_wrapper
from vitdfq.models.untrusted import short

KEPT = ("first_conv", "classifier", "pool_size", "fixed_input_size")  # facts of the class, whatever the weights
NOT_CLASSES = ("regression", "multi_label_classification")


class TimmForm(NamedTuple):
    """A checkpoint of transformers as timm builds it: `timm.create_model(architecture, pretrained_cfg=..., **model_args)`."""

    architecture: str
    model_args: dict[str, Any]  # and `norm_eps`, see `vitdfq.models.build.create`
    pretrained_cfg: dict[str, Any]
    tensors: Callable[[Tensors], Tensors]  # transformers' names -> timm's; what is not part of the model is left out
    notes: tuple[str, ...] = ()  # what was decided without the folder saying it, for whoever uses the weights


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
        ValueError: an `img_size` that is no size.
    """
    file, kind = folder / "config.json", KINDS.get(config["model_type"])
    name = _class_name(file, config, is_known=kind is not None or config["model_type"] == WRAPPER)
    if kind is None:
        return TimmForm(*read_wrapper(file, config, name))
    gives = _gives(file, kind, name, headless)
    labels = _labels(file, config, headless) if gives.endswith("classes") else []
    tower = _tower(file, config, kind, gives, len(labels))
    images, notes = read_images(folder), []
    if images is None:
        mean, std = kind.normalization
        images = {"mean": mean, "std": std}
        notes.append(f"{folder}: has no {PREPROCESSOR}; images are taken to be normalized with mean {mean} and std {std}")
    if img_size is not None:
        img_size = _checked_size(img_size)
    elif kind.interpolates:
        img_size = _fitting(tower, images.get("input_size"))
        if img_size is not None and img_size != tower.size("image_size"):
            notes.append(f"{folder}: built for images of {img_size}, as its {PREPROCESSOR} makes them; img_size=... for others")
    structure = kind.structure(replace(tower, img_size=img_size))
    architecture, model_args = structure.architecture, structure.model_args
    if gives == "projection" and not headless and tower.num_classes not in projection_widths(architecture):
        width = f"its projection has {tower.num_classes} outputs, as no tower of timm's, and would be taken for a classifier"
        raise InputError(f"{file}: {width}; num_classes=0 loads the features in front of it")
    pretrained_cfg = _pretrained_cfg(architecture, model_args["img_size"], images, tower.num_classes, labels)

    def tensors(theirs: Tensors) -> Tensors:
        try:
            return structure.tensors(theirs)
        except (RuntimeError, IndexError, TypeError) as error:  # torch's, for shapes that cannot be joined or cut
            raise InputError(f"{folder}: holds tensors in shapes that no {name} has ({one_line(error)})") from error

    return TimmForm(architecture, model_args, pretrained_cfg, tensors, tuple(notes))


def _class_name(file: Path, config: dict[str, Any], is_known: bool) -> str:
    """The class of transformers that a config.json names, of a type that is read."""
    names, model_type = config.get("architectures"), short(config["model_type"])
    name = names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
    if not is_known:
        what = f"is a transformers model of type {model_type}{f' ({short(name)})' if name else ''}"
        raise InputError(f"{file}: {what}; types that are read: {', '.join(KINDS)} and {WRAPPER}")
    if name is None:
        raise InputError(f'{file}: is a transformers model of type {model_type}, but names no class in "architectures"')
    return name


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


def _tower(file: Path, config: dict[str, Any], kind: Kind, gives: str, num_classes: int) -> Config:
    """The values of the image's side of a pair, or of the whole."""
    section = config.get("vision_config", config)
    if not isinstance(section, dict):
        raise InputError(f"{file}: vision_config is not a mapping")
    tower = Config(file, section, kind.defaults, gives, num_classes)
    if tower.whole("num_channels") != 3:
        raise InputError(f"{file}: num_channels is {tower.whole('num_channels')}; only RGB is supported")
    if gives == "projection":
        return replace(tower, num_classes=replace(tower, values=config).whole("projection_dim"))
    return tower


def _labels(file: Path, config: dict[str, Any], headless: bool) -> list[str]:
    """The names of the classes; two numbered ones by default, as in transformers."""
    if config.get("problem_type") in NOT_CLASSES and not headless:
        problem = f"problem_type is {config['problem_type']!r}, so an image is not of one of its classes"
        raise InputError(f"{file}: {problem}; num_classes=0 loads its features")
    names = config.get("id2label")
    if names is None:
        number = config.get("num_labels", 2)
        if not isinstance(number, int) or not 0 < number < 2**16:
            raise InputError(f"{file}: num_labels is {short(number)}; expected a number of classes")
        return [f"LABEL_{index}" for index in range(number)]
    if not isinstance(names, dict) or not names or set(names) != {str(index) for index in range(len(names))}:
        raise InputError(f"{file}: id2label does not number the classes 0, 1, 2 ...: {short(names)}")
    return [str(names[str(index)]) for index in range(len(names))]


def _checked_size(img_size: Any) -> int | list[int]:
    """The size that a caller asked for; ValueError where it is none."""
    size = list(img_size) if isinstance(img_size, list | tuple) else img_size
    if not all(isinstance(side, int) and side > 0 for side in (size if isinstance(size, list) and len(size) == 2 else [size])):
        raise ValueError(f"img_size is {short(img_size)}; expected a side, or height and width")
    return size


def _fitting(tower: Config, input_size: Any) -> int | list[int] | None:
    """The size of the images that the processor makes, where whole patches fill it; None: that of the config."""
    if input_size is None:
        return None
    height, width = input_size[1:]
    patch_height, patch_width = sides(tower.size("patch_size"))
    if height % patch_height or width % patch_width:
        return None
    return height if height == width else [height, width]


def _pretrained_cfg(
    architecture: str, img_size: int | list[int], images: dict[str, Any], num_classes: int, labels: list[str]
) -> dict[str, Any]:
    """timm's description of the weights, which are others than those that timm has for the architecture."""
    known = get_pretrained_cfg(architecture)
    facts = {key: value for key, value in known.to_dict().items() if key in KEPT} if known else {}
    fixed = {"architecture": architecture, "num_classes": num_classes, "input_size": [3, *sides(img_size)]}
    return facts | {"crop_pct": 1.0, "interpolation": "bicubic"} | images | fixed | ({"label_names": labels} if labels else {})
