"""Names of classes: which class of the model is meant by each class of a data set."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitdfq.common.errors import RecipeError

WNID = re.compile(r"n\d{8}")  # WordNet's id of a noun: the names of ImageNet's class folders
NUMBERED = re.compile(r"(\D*)(\d+)")
NUMBER_BEFORE = re.compile(r"\d+[\s._-]+(?=\D)")  # "001.Black_footed_Albatross"
ENOUGH_CLASSES, ENOUGH_EQUAL = 100, 0.9  # the order of so many classes is the same if that share of the names is
OUT = "match_names: false numbers them in order"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """The classes of a model.

    Attributes:
        num: how many.
        names: in the order of its logits; None if they are not known.
        descriptions: name -> text, where the model has some.
    """

    num: int
    names: tuple[str, ...] | None = None
    descriptions: Mapping[str, str] | None = None

    @classmethod
    def of(cls, model: Any) -> "Classes":
        """Read `num_classes` and the names in `pretrained_cfg`, as timm stores them.

        Raises:
            ValueError: the model has no `num_classes`.
        """
        num = getattr(model, "num_classes", None)
        if not isinstance(num, int):
            raise ValueError(f"{type(model).__name__} has no num_classes; evaluate takes timm models and students")
        config = getattr(model, "pretrained_cfg", None) or {}
        names, descriptions = config.get("label_names"), config.get("label_descriptions")
        if isinstance(names, Mapping):  # number -> name
            numbered = {int(key): name for key, name in names.items() if str(key).isdecimal()}
            names = [numbered[number] for number in sorted(numbered)]
        if not isinstance(names, Sequence) or isinstance(names, str) or len(names) != num:  # or those of a head that was replaced
            names = None
        known = None if names is None else tuple(map(str, names))
        return cls(num, known, descriptions if isinstance(descriptions, Mapping) else None)


def class_numbers(where: str, names: Sequence[str], classes: Classes, match_names: bool = True) -> list[int]:
    """Return the model's number of each class of a set.

    Names that both sides know are matched; letters, spaces and signs may be written otherwise, and WordNet ids stand for their
    words. Without names, or with names that only number ("class_3"), the order counts.

    Args:
        where: the set, for messages.
        names: of its classes, in its order.
        classes: of the model.
        match_names: False: the order counts in any case.

    Raises:
        RecipeError: another number of classes, or other classes.
    """
    known = names_of(classes, names) if match_names else None
    matched = _matched(names, known, classes.descriptions) if known else None
    if matched is not None:
        if len(names) < classes.num:
            logger.info(f"dataset {where} has {len(names)} of the model's {classes.num} classes, matched by name")
        return matched
    if len(names) != classes.num:
        raise RecipeError(
            f"dataset {where} has {len(names)} classes, the model has {classes.num} (label_column: none reads it without labels)"
        )
    if known and not any(map(only_numbers, (names, known))) and not _may_be_in_order(where, names, known):
        left, right = set(map(normalized, names)), set(map(normalized, known))
        ours = next((name for name in names if normalized(name) not in right), None)
        theirs = next((name for name in known if normalized(name) not in left), None)
        if ours is None or theirs is None:
            raise RecipeError(f"dataset {where}: two of its classes, or of the model's, have the same name; {OUT}")
        raise RecipeError(
            f"dataset {where} has other classes than the model: {ours!r} is none of the model's, {theirs!r} none of its; {OUT}"
        )
    return list(range(classes.num))


def label_numbers(classes: Classes, labels: Sequence[str]) -> dict[str, int] | None:
    """Return the normalized name of each class -> its number, to read labels that are text; None if the model has no names.

    Args:
        classes: of the model.
        labels: some of the set's: those of ImageNet are known without the model's help.
    """
    known = names_of(classes, labels)
    if known is None:
        return None
    numbers: dict[str, int] = {}
    for spelling in _spellings(known, classes.descriptions):
        keys = [normalized(name) for name in spelling]
        if len(set(keys)) == len(keys):  # a word for two classes says nothing
            numbers = {key: number for number, key in enumerate(keys)} | numbers
    return numbers


def names_of(classes: Classes, names: Sequence[str]) -> Sequence[str] | None:
    """Return the model's names; for an ImageNet model without names, and WordNet ids on the other side, those of ImageNet."""
    if classes.names is not None or not _are_wnids(names):
        return classes.names
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": classes.num})
    known = ImageNetInfo(subset).label_names() if subset else None
    return known if known and set(names) <= set(known) else None


def only_numbers(names: Sequence[str]) -> bool:
    """Return whether names only number the classes: "3", "class_3", or the alphabet in order."""
    if _are_wnids(names):
        return False
    parts = [NUMBERED.fullmatch(name.strip()) for name in names]
    letters = [chr(ord("a") + number) for number in range(len(names))]
    return (all(parts) and len({part[1].lower() for part in parts if part}) == 1) or [name.lower() for name in names] == letters


def normalized(name: str) -> str:
    """Return a name without the differences of spelling that do not matter: "T-shirt / top" and "t_shirt_top" are the same."""
    return "".join(sign for sign in name.casefold() if sign.isalnum()) or name.strip()


def _matched(names: Sequence[str], known: Sequence[str], descriptions: Mapping[str, str] | None) -> list[int] | None:
    """Return the number of each of `names` in `known`, in the first spelling of both that has them all; else None."""
    for left in _spellings(names, None):
        for right in _spellings(known, descriptions):
            for key in (str.strip, normalized):
                ours, theirs = [key(name) for name in left], [key(name) for name in right]
                if ours == theirs:
                    return list(range(len(ours)))
                numbers = {name: number for number, name in enumerate(theirs)}
                if len(numbers) == len(theirs) and len(set(ours)) == len(ours) and set(ours) <= set(numbers):
                    return [numbers[name] for name in ours]
    return None


def _spellings(names: Sequence[str], descriptions: Mapping[str, str] | None) -> list[Sequence[str]]:
    """Return the names in other words, where each class has them, and of each the first synonym.

    These are the words of WordNet ids, names without the numbers before them, and the model's descriptions.
    """
    spellings = [names]
    if _are_wnids(names) and (words := _words(names)):
        spellings.append(words)
    if all(NUMBER_BEFORE.match(name) for name in names):
        spellings.append([NUMBER_BEFORE.sub("", name, count=1) for name in names])
    if descriptions and all(name in descriptions for name in names):
        spellings.append([str(descriptions[name]) for name in names])
    return spellings + [[name.split(",")[0] for name in spelling] for spelling in spellings]


def _may_be_in_order(where: str, names: Sequence[str], known: Sequence[str]) -> bool:
    """Return whether names that differ may be those of the same classes in the same order."""
    if _are_wnids(names) != _are_wnids(known):  # ids on one side, words of another source on the other: they do not compare
        logger.info(f"dataset {where}: its class names and the model's cannot be compared; classes are numbered in order")
        return True
    equal = sum(normalized(name) == normalized(other) for name, other in zip(names, known, strict=True))
    return len(names) >= ENOUGH_CLASSES and equal >= ENOUGH_EQUAL * len(names)


def _are_wnids(names: Sequence[str]) -> bool:
    return bool(names) and all(WNID.fullmatch(name) for name in names)


def _words(wnids: Sequence[str]) -> list[str] | None:
    """Return the synonyms that WordNet gives for each id; None if one of them is not known to timm."""
    from timm.data import ImageNetInfo

    information = ImageNetInfo()
    try:
        return [information.label_name_to_description(wnid) for wnid in wnids]
    except KeyError:
        return None
