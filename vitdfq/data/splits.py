"""The files and folders of a split, recognized by their names."""

import re
from pathlib import Path

from vitdfq.common.errors import RecipeError

SAME_SPLIT = [{"validation", "val", "valid", "dev"}, {"test"}, {"train"}]


def files_of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """Return the files of `folder` that name the split in their path; all files, if none names any split.

    Raises:
        RecipeError: only other splits are named.
    """
    splits = {file: split_named_by(file.relative_to(folder)) for file in files}
    matching = [file for file, named in splits.items() if named in aliases(split)]
    if not matching and any(splits.values()):
        raise no_split(folder, split, {named for named in splits.values() if named})
    return matching or files


def folder_of_split(folder: Path, split: str) -> Path:
    """Return the folder that holds the class folders: the split's own, or `folder` itself if it has none for any split.

    Raises:
        RecipeError: there are only folders of other splits.
    """
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    matching = sorted(aliases(split) & names)
    if matching:
        return folder / matching[0]
    if names and all(any(name in synonyms for synonyms in SAME_SPLIT) for name in names):
        raise no_split(folder, split, names)
    return folder


def split_named_by(path: Path) -> str | None:
    """Return the split that a path inside a set names, as in `train-0.parquet`, `x-validation-00.tar`, `val/x.parquet`."""
    words = [*re.split(r"[-._]", path.name), *reversed(path.parent.parts)]
    return next((word for word in words if any(word in synonyms for synonyms in SAME_SPLIT)), None)


def aliases(split: str) -> set[str]:
    """Return all names that are used for a split, itself among them."""
    return next((synonyms for synonyms in SAME_SPLIT if split in synonyms), {split})


def no_split(where: object, split: str, choices: set[str]) -> RecipeError:
    return RecipeError(f"{where} has no split {split!r}; choices: {', '.join(sorted(choices))}")
