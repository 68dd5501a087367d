"""Labeled images on disk: parquet files, tar shards (webdataset), or a folder for each class."""

import tarfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vitdfq.common.errors import InputError, one_line
from vitdfq.data.splits import files_of_split, folder_of_split

KINDS = {".parquet": "parquet", ".tar": "webdataset"}  # suffix of a file -> its reader in datasets


@dataclass(frozen=True)
class Source:
    """An opened set of labeled images, on disk or on the Hub; its columns and classes are not checked yet.

    Attributes:
        name: as the caller spelled it.
        rows: a datasets.Dataset or datasets.IterableDataset.
        num_rows: None if it is not known.
        failed: the error to raise when a row cannot be read.
    """

    name: str
    rows: Any
    num_rows: int | None
    failed: type[Exception]


def open_folder(name: str, folder: Path, split: str) -> Source:
    """Open split `split` of a folder of parquet files, else tar shards, else class folders.

    Raises:
        RecipeError: no such split.
        InputError: damaged files, or no images.
    """
    for suffix in KINDS:
        files = sorted(folder.rglob(f"*{suffix}"))
        if files:
            return open_files(name, files_of_split(folder, files, split))
    return _class_folders(name, folder_of_split(folder, split))


def open_files(name: str, files: list[Path]) -> Source:
    """Open files of one kind as one set, in this order.

    Raises:
        InputError: one of them is damaged, or neither parquet nor tar.
    """
    from datasets import load_dataset

    kind = KINDS.get(files[0].suffix)
    if kind is None:
        raise InputError(f"dataset {name}: {files[0]} is neither {' nor '.join(KINDS)}")
    try:
        num_rows = sum(_count(file) for file in files)
        # A stream, as from the Hub: nothing is copied to a cache, although `datasets` needs a folder for one.
        data_files = {"rows": [str(file) for file in files]}
        with TemporaryDirectory() as cache:
            rows = load_dataset(kind, data_files=data_files, split="rows", streaming=True, cache_dir=cache)
    except Exception as error:  # pyarrow, tarfile and datasets raise a dozen types for a damaged file
        raise InputError(f"dataset {name}: not readable as {kind} ({one_line(error)})") from error
    return Source(name, rows, num_rows, InputError)


def _count(file: Path) -> int:
    """Return the number of rows of a file without reading them."""
    import pyarrow.parquet

    if file.suffix == ".parquet":
        return pyarrow.parquet.read_metadata(file).num_rows
    with tarfile.open(file) as shard:  # the files of one row share their name up to the first dot
        return len({_key(name) for name in shard.getnames()})


def _key(name: str) -> str:
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _class_folders(name: str, folder: Path) -> Source:
    """Open class folders: class numbers follow the sorted folder names (for ImageNet WNID order, as in timm).

    Rows take one file of each class in turn, so that the first `num_images` are not all of one class.
    """
    from datasets import ClassLabel, Dataset, Features, Image

    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    suffixes = _image_suffixes()
    turns = [
        (turn, label, str(file))
        for label, class_name in enumerate(classes)
        for turn, file in enumerate(sorted(file for file in (folder / class_name).rglob("*") if file.suffix.lower() in suffixes))
    ]
    if not turns:
        raise InputError(f"dataset {name}: no parquet files, no tar shards and no class folders with images in {folder}")
    turns.sort()
    columns = {"image": [file for _, _, file in turns], "label": [label for _, label, _ in turns]}
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=classes)})
    return Source(name, Dataset.from_dict(columns, features=features), len(turns), InputError)


def _image_suffixes() -> set[str]:
    from PIL import Image

    return set(Image.registered_extensions())
