"""Which files and folders belong to a split, by their names."""

import re
from pathlib import Path

from vitdfq.common.errors import RecipeError

SAME_SPLIT = [{"validation", "val", "valid", "dev"}, {"test"}, {"train"}]


def files_of_split(folder: Path, files: list[Path], split: str) -> list[Path]:
    """Those of the files in `folder` that name the split, or lie in a folder named so; all, if none names any split.

    Raises:
        RecipeError: they name other splits only.
    """
    splits = {file: split_named_by(file.relative_to(folder)) for file in files}
    found = [file for file, named in splits.items() if named in aliases(split)]
    if not found and any(splits.values()):
        raise no_split(folder, split, {named for named in splits.values() if named})
    return found or files


def folder_of_split(folder: Path, split: str) -> Path:
    """The folder of class folders: the one named by the split, or `folder` itself if none in it names any split.

    Raises:
        RecipeError: there are folders for other splits, and nothing else.
    """
    names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
    found = sorted(aliases(split) & names)
    if found:
        return folder / found[0]
    if names and all(any(name in alike for alike in SAME_SPLIT) for name in names):
        raise no_split(folder, split, names)
    return folder


def split_named_by(path: Path) -> str | None:
    """The split that a path inside a set names: `train-0.parquet`, `imagenet1k-validation-00.tar`, `val/x.parquet`."""
    words = [*re.split(r"[-._]", path.name), *reversed(path.parent.parts)]
    return next((word for word in words if any(word in names for names in SAME_SPLIT)), None)


def aliases(split: str) -> set[str]:
    return next((names for names in SAME_SPLIT if split in names), {split})


def no_split(where: object, split: str, choices: set[str]) -> RecipeError:
    return RecipeError(f"{where} has no split {split!r}; choices: {', '.join(sorted(choices))}")
