"""A folder for each class, numbered as timm numbers them; or a folder of images without labels."""

import logging
from pathlib import Path

from vitdfq.common.errors import InputError
from vitdfq.data.class_names import Classes, names_of, normalized
from vitdfq.data.hidden import image_suffixes, visible_files, visible_folders
from vitdfq.data.source import Columns, Source, image_files

logger = logging.getLogger(__name__)


def open_class_folders(name: str, folder: Path, classes: Classes, columns: Columns) -> Source:
    """Open class folders, or images without labels if `folder` holds no folders of images.

    Rows take one file of each class in turn, so that the first `num_images` are not all of one class.

    Args:
        name: of the set.
        folder: of the split.
        classes: of the model: they tell whether nested folders are classes.
        columns: `label` "none" leaves the folders out of account.

    Raises:
        InputError: no images.
    """
    from datasets import ClassLabel

    files = visible_files(folder, image_suffixes())
    if not files:
        raise InputError(f"dataset {name}: no parquet files, no tar shards and no class folders with images in {folder}")
    nested = [file for file in files if file.parent != folder]
    if not nested or not columns.has_labels:
        return image_files(name, [str(file) for file in files], None, None, InputError)
    if len(nested) < len(files):
        logger.info(f"dataset {name}: {len(files) - len(nested)} images outside the class folders of {folder} are left out")
    names, class_of = _numbering(folder, nested, classes)
    numbers = {class_name: number for number, class_name in enumerate(names)}
    taken = [0] * len(names)
    turns = []
    for file in nested:
        label = numbers[class_of[file]]
        turns.append((taken[label], label, str(file)))
        taken[label] += 1
    turns.sort()
    return image_files(
        name, [file for _, _, file in turns], [label for _, label, _ in turns], ClassLabel(names=names), InputError
    )


def natural(names: set[str]) -> list[str]:
    """Return the names in timm's order: without regard to case, numbers by their value ("class_2" before "class_10")."""
    from timm.utils import natural_key

    return sorted(sorted(names), key=natural_key)


def _numbering(folder: Path, files: list[Path], classes: Classes) -> tuple[list[str], dict[Path, str]]:
    """Return the names of the classes in their order, and the class of each file.

    timm takes the folder that a file lies in. Others put `images` folders inside the classes, or leave a class without images:
    where timm's way does not give the model's classes, the outer folders do, if their names or their number fit.
    """
    inner = {file: file.parent.name for file in files}
    outer = {file: file.relative_to(folder).parts[0] for file in files}
    ways = [(natural(set(inner.values())), inner), (natural(set(outer.values())), outer)]
    ways.append((natural({path.name for path in visible_folders(folder)} | set(outer.values())), outer))
    for names, class_of in ways:
        known = names_of(classes, names)
        if known and set(map(normalized, names)) == set(map(normalized, known)):
            return names, class_of
    return next((way for way in ways if len(way[0]) == classes.num), ways[0])
