"""From the name of a dataset to its opened rows: the zoo, a path, or the Hub."""

import re
from pathlib import Path

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.lookup import did_you_mean
from vitdfq.data.class_names import Classes
from vitdfq.data.hidden import visible_files
from vitdfq.data.local import KINDS, open_file, open_folder
from vitdfq.data.remote import open_fetched, open_stream
from vitdfq.data.source import Columns, Source
from vitdfq.data.splits import aliases, check_split, same_split, split_folders, split_named_by

ZOO = Path(__file__).parents[1] / "zoo"
SHORT_NAMES = {"imagenet-1k": "ILSVRC/imagenet-1k"}
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def check_dataset(dataset: str) -> None:
    """Refuse a name that cannot be a dataset; nothing is opened, and the network is not used.

    Raises:
        RecipeError: an unknown zoo set, or neither a path, a Hub id (`owner/name`) nor a short name.
    """
    if dataset.startswith("zoo:"):
        choices = [f"zoo:{path.name}" for path in sorted(ZOO.iterdir()) if any(path.glob("*.parquet"))]
    elif dataset in SHORT_NAMES or re.search(r"[/\\~]", dataset) or Path(dataset).exists():
        return
    else:
        choices = [*SHORT_NAMES, "zoo:fashion-mnist", "a Hub id owner/name", "a folder", "a list of files (CSV)"]
    if dataset not in choices:
        near = did_you_mean(dataset, choices)
        raise RecipeError(f"unknown dataset {dataset!r}{near}; choices: {', '.join(choices)}")


def open_source(dataset: str, split: str, streaming: bool, classes: Classes, columns: Columns) -> Source:
    """Open the rows of `split`; of a Hub set as a stream (`streaming`), or from its cache after a download.

    Args:
        dataset, split, streaming, columns: as in `load_labeled`.
        classes: of the model.

    Raises:
        RecipeError: an unknown name or split.
        InputError: a path that is missing or holds no images.
        AccessError: a Hub dataset that cannot be reached: offline, gated or not found.
    """
    check_dataset(dataset)
    check_split(split)
    if dataset.startswith("zoo:"):  # its only split has both names
        is_test = split.lower() in aliases("test") | aliases("validation")
        return open_folder(dataset, _zoo(dataset), "test" if is_test else split, classes, columns)
    if is_local(dataset):
        path = Path(dataset).expanduser()
        if not path.exists():
            raise InputError(f"dataset {dataset}: no such file or folder")
        return open_folder(dataset, path, split, classes, columns) if path.is_dir() else open_file(dataset, path, split, columns)
    hub_id = SHORT_NAMES.get(dataset, dataset)
    return open_stream(dataset, hub_id, split) if streaming else open_fetched(dataset, hub_id, split, columns)


def is_local(dataset: str) -> bool:
    """Return whether a name is that of a file or folder: one that exists, or one that can be neither the zoo's nor the Hub's."""
    if dataset.startswith("zoo:"):
        return False
    return Path(dataset).expanduser().exists() or not HUB_ID.fullmatch(SHORT_NAMES.get(dataset, dataset))


def has_split_beside(dataset: str, split: str, other: str = "train") -> bool:
    """Return whether `dataset` may have a split `other` beside `split`; True for a Hub id, whose splits are not known here."""
    path = _zoo(dataset) if dataset.startswith("zoo:") else Path(dataset).expanduser()
    if same_split(split, other) or path.is_file():
        return False
    if not path.is_dir():
        return True
    files = visible_files(path, KINDS)
    if files:
        return any(split_named_by(file.relative_to(path), other) in aliases(other) for file in files)
    return any(inner.name.lower() in aliases(other) for inner in split_folders(path, other))


def _zoo(dataset: str) -> Path:
    return ZOO / dataset.removeprefix("zoo:")
