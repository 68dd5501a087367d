"""A model of timm in a folder of `transformers` (TimmWrapper): timm's own names with a prefix, timm's own arguments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from timm.models import get_pretrained_cfg

from vitdfq.common.errors import InputError
from vitdfq.models.build import ORIGIN, known_architecture
from vitdfq.models.transformers.names import Tensors
from vitdfq.models.untrusted import check_arguments, check_pretrained_cfg, short

WRAPPER = "timm_wrapper"
CLASSES = {"TimmWrapperForImageClassification": True, "TimmWrapperModel": False}  # whether it has a classifier
PREFIX = "timm_model."
OF_OTHERS = (*ORIGIN, "hf_hub_id", "tag", "license", "origin_url")  # keys of a pretrained_cfg: of timm's own weights


def read_wrapper(
    file: Path, config: dict[str, Any], name: str
) -> tuple[str, dict[str, Any], dict[str, Any], Callable[[Tensors], Tensors]]:
    """Return architecture, model_args, pretrained_cfg, and what renames the tensors.

    Raises:
        InputError: another class, no architecture, or a value that no model has.
    """
    if name not in CLASSES:
        raise InputError(f"{file}: is a {short(name)}; classes of this type that are read: {', '.join(CLASSES)}")
    architecture = config.get("architecture")
    if not isinstance(architecture, str):
        raise InputError(f'{file}: is a {name}, but names no "architecture" of timm')
    model_args, given = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    for key, value in (("model_args", model_args), ("pretrained_cfg", given)):
        if not isinstance(value, dict):
            raise InputError(f'{file}: its "{key}" is not a mapping')
    try:
        known = get_pretrained_cfg(known_architecture(architecture))
        own = {key: value for key, value in given.items() if key not in ORIGIN}
        facts = own or {key: value for key, value in (known.to_dict() if known else {}).items() if key not in OF_OTHERS}
        labels, num_classes = _labels(config, given), config.get("num_classes", 0) if CLASSES[name] else 0
        pretrained_cfg = {**facts, "architecture": architecture.partition(".")[0], "num_classes": num_classes}
        pretrained_cfg |= {"label_names": labels} if labels and num_classes == len(labels) else {}
        check_arguments(model_args | {"num_classes": num_classes})
        check_pretrained_cfg(pretrained_cfg)
    except ValueError as error:
        raise InputError(f"{file}: {error}") from error

    def tensors(theirs: Tensors) -> Tensors:
        return {name.removeprefix(PREFIX): value for name, value in theirs.items()}

    return architecture, model_args, pretrained_cfg, tensors


def _labels(config: dict[str, Any], pretrained_cfg: dict[str, Any]) -> list[str] | None:
    names = config.get("label_names") or pretrained_cfg.get("label_names")
    return [str(name) for name in names] if isinstance(names, list) else None
