"""The files and folders of a split, recognized by their names."""

import logging
import re
from pathlib import Path

from vitdfq.common.errors import RecipeError
from vitdfq.common.lookup import did_you_mean
from vitdfq.data.hidden import visible_folders

SAME_SPLIT = [
    {"validation", "val", "valid", "dev"},
    {"test", "testing", "eval", "evaluation"},
    {"train", "training"},
]
KNOWN = set().union(*SAME_SPLIT)
SLICE = re.compile(r"[\[\]+%:]")
logger = logging.getLogger(__name__)


def check_split(split: str) -> None:
    """Refuse what `datasets` reads as a part or a sum of splits: local sets have none, and every set is to behave alike.

    Raises:
        RecipeError: with the key that takes a number of images.
    """
    if SLICE.search(split):
        whole = re.split(SLICE, split)[0].strip() or "validation"
        raise RecipeError(
            f"split {split!r}: parts of splits are not read; write split: {whole} and num_images: N for its first N"
        )
    if split.strip() in ("", "all"):  # "all" is every split to `datasets`
        raise RecipeError(f"split {split!r} names no split; write split: validation, for example")


def files_of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """Return the files of `folder` that name the split in their path; all files, if none names any split.

    Raises:
        RecipeError: several are meant, only other splits are named, or none is named and `split` is not the usual name of one.
    """
    splits = {file: split_named_by(file.relative_to(folder), split) for file in files}
    if one := one_of(folder, split, {named for named in splits.values() if named in aliases(split)}):
        return [file for file, named in splits.items() if named == one]
    if any(splits.values()):
        raise no_split(folder, split, {named for named in splits.values() if named})
    check_unsplit(folder, split)
    return files


def folder_of_split(folder: Path, split: str) -> Path:
    """Return the folder that holds the class folders: the split's own, or `folder` itself if it has none for any split.

    Raises:
        RecipeError: several are meant, there are only folders of other splits, or none, and `split` is not the usual name of one.
    """
    named = split_folders(folder, split)
    if named:
        matching = [path for path in named if path.name.lower() in aliases(split)]
        if one := one_of(folder, split, {path.name for path in matching}):
            return folder / one
        raise no_split(folder, split, {path.name for path in named})
    check_unsplit(folder, split)
    return folder


def split_folders(folder: Path, split: str = "train") -> list[Path]:
    """Return the folders of splits in `folder`: those with the usual names, or called `split`.

    A folder of such a name is one if it, or a neighbor of such a name, holds folders, or if all its neighbors are called so too.
    Otherwise it may be a class: trains, for example.
    """
    folders = visible_folders(folder)
    named = [path for path in folders if path.name.lower() in KNOWN | {split.lower()}]
    is_split = len(named) == len(folders) or any(visible_folders(path) for path in named)
    return named if is_split else []


def check_unsplit(where: object, split: str) -> None:
    """Accept the usual names of a split for a set without splits; another one is a mistake.

    Raises:
        RecipeError: with the choices.
    """
    if split.lower() not in KNOWN:
        usual = ["validation", "test", "train"]
        near = did_you_mean(split, usual)
        raise RecipeError(
            f"{where} has no splits, so split {split!r} is unknown{near}; choices: {', '.join(usual)}, each all of it"
        )
    if split.lower() not in aliases("validation"):  # that one is the default, and meant by nobody in particular
        logger.info(f"{where} has no splits: all of it is read as split {split!r}")


def split_named_by(path: Path, split: str = "") -> str | None:
    """Return the split that a path inside a set names, as in `train-0.parquet`, `x-validation-00.tar`, `val/x.parquet`.

    Args:
        path: inside the set.
        split: counts as a name of a split, beside the usual ones.
    """
    words = [*re.split(r"[-._]", path.name), *reversed(path.parent.parts)]
    return next((word.lower() for word in words if word.lower() in KNOWN | ({split.lower()} if split else set())), None)


def aliases(split: str) -> set[str]:
    """Return all names that are used for a split, itself among them, in lower case."""
    split = split.lower()
    return next((synonyms for synonyms in SAME_SPLIT if split in synonyms), {split})


def same_split(split: str, other: str) -> bool:
    """Return whether two names mean one split."""
    return split.lower() in aliases(other)


def one_of(where: object, split: str, named: set[str]) -> str | None:
    """Return which of a set's splits is meant: the one that is written as `split` is, or else the only one.

    Args:
        where: the set, for messages.
        split: as asked for.
        named: the aliases of `split` that the set has; none: None is returned.

    Raises:
        RecipeError: several, for example "dev" and "val" where "validation" is asked for. They may be different sets.
    """
    written = [name for name in named if name == split] or [name for name in named if name.lower() == split.lower()] or [*named]
    if len(written) > 1:
        raise RecipeError(f"{where} has several splits for {split!r}; choices of split: {', '.join(sorted(written))}")
    return written[0] if written else None


def no_split(where: object, split: str, choices: set[str]) -> RecipeError:
    near = did_you_mean(split, choices)
    return RecipeError(f"{where} has no split {split!r}{near}; choices: {', '.join(sorted(choices))}")
