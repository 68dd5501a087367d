"""load_recipe(): from a file, a name or a dict to a checked Recipe."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.recipe.document import Document
from vitdfq.recipe.find import find_recipe
from vitdfq.recipe.reader import read_document, set_value
from vitdfq.recipe.signature import check_keywords, check_plain

SECTIONS = ("model", "synthesize", "prepare", "quantize", "calibrate", "evaluate", "push")
TOP_LEVEL: dict[str, Any] = {
    "name": str,
    "notes": str | None,
    "seed": int,
    "reference_top1": float | None,
    "min_agreement": float | None,
    **dict.fromkeys(SECTIONS, dict | None),
    "baselines": list[str] | None,
    "trackers": list[str] | None,
    "compare": dict | None,
}
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,99}")  # it names a folder
LARGEST = 256 << 10  # bytes


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: a section holds keyword arguments of the function of its name, `model` those of `load_teacher`."""

    name: str
    model: dict[str, Any]
    seed: int = 0
    reference_top1: float | None = None  # the teacher's published top-1 on the whole split
    min_agreement: float | None = None  # % of the synthetic images on which the student must agree; None: well above chance
    notes: str | None = None
    synthesize: dict[str, Any] = field(default_factory=dict)
    prepare: dict[str, Any] = field(default_factory=dict)
    quantize: dict[str, Any] = field(default_factory=dict)
    calibrate: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)
    baselines: list[str] = field(default_factory=list)  # synthesis methods; a student is calibrated on the images of each
    trackers: list[str] = field(default_factory=list)  # of accelerate, "tensorboard" for example: they get losses and rates
    push: dict[str, Any] = field(default_factory=dict)  # without a repo nothing is published
    compare: dict[str, Any] = field(default_factory=dict)  # see `Comparison` in compare_section.py

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `load_recipe` reads back to an equal Recipe."""
        content = asdict(self)
        for section in SECTIONS:
            if content[section].get("seed") == self.seed:  # it came from the top, and should follow it
                del content[section]["seed"]
        return {key: content[key] for key in TOP_LEVEL if content[key] is not None}

    def to_yaml(self) -> str:
        """The same as YAML; `name` comes first. Without `push`: who runs a published recipe again has a place of their own."""
        content = {key: value for key, value in self.to_dict().items() if key != "push"}
        return yaml.dump(content, Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=120)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe; no weights, no images, no network.

    Args:
        source: path of a YAML file, name of a recipe in `recipes/`, or the content as a dict.
        overrides: texts `section.key=value`, values as YAML, applied before the check; numbers reach into lists, as in
            `calibrate.steps.0=observe`.

    Raises:
        InputError: no such file; an override without "=".
        RecipeError: not YAML, an unknown key or name, a wrong type, a number out of range; one line with file and line.
    """
    if isinstance(source, Mapping):
        document = Document("recipe", copy.deepcopy(dict(source)))
    else:
        document = _read(find_recipe(source))
    for assignment in overrides:
        set_value(document, assignment)
    check_plain(document)
    check_keywords(document, (), TOP_LEVEL)
    content = document.content
    for section in (*SECTIONS, "compare"):
        content[section] = content.get(section) or {}
    for key in ("baselines", "trackers"):
        content[key] = content.get(key) or []
    content.setdefault("name", "recipe" if isinstance(source, Mapping) else Path(document.name).stem)
    _check_top_level(document)

    from vitdfq.recipe.sections import check_sections, takes_seed  # late: torch, timm and all parts of the package

    check_sections(document)
    for section in SECTIONS:
        if takes_seed(section):
            content[section].setdefault("seed", content.get("seed", 0))
    return Recipe(**content)


def _read(path: Path) -> Document:
    try:
        if path.stat().st_size > LARGEST:
            raise RecipeError(f"{path}: larger than {LARGEST >> 10} KiB; a recipe is a page of text")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a YAML text file ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    return read_document(str(path), text)


def _check_top_level(document: Document) -> None:
    content = document.content
    if not NAME.fullmatch(content["name"]):
        document.fail(("name",), f"{content['name']!r} must be letters, digits, '.', '_' and '-', 100 at most: it names a folder")
    if content.get("seed", 0) < 0:
        document.fail(("seed",), f"{content['seed']} is negative")
    for key in ("reference_top1", "min_agreement"):
        percentage = content.get(key)
        if percentage is not None and not 0 <= percentage <= 100:
            document.fail((key,), f"{percentage} is not a percentage")


class _WithoutAliases(yaml.SafeDumper):
    """Writes a value out each time; aliases are not read back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
