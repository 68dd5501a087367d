"""From the name of a dataset to its opened rows: the zoo, a path, or the Hub."""

import re
from pathlib import Path

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.lookup import did_you_mean
from vitdfq.data.local import KINDS, Source, open_files, open_folder
from vitdfq.data.remote import open_fetched, open_stream
from vitdfq.data.splits import split_named_by

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
        choices = [*SHORT_NAMES, "zoo:fashion-mnist", "a Hub id owner/name", "a folder"]
    if dataset not in choices:
        near = did_you_mean(dataset, choices)
        raise RecipeError(f"unknown dataset {dataset!r}{near}; choices: {', '.join(choices)}")


def open_source(dataset: str, split: str, streaming: bool) -> Source:
    """Open the rows of `split`; of a Hub set as a stream (`streaming`), or from its cache after a download.

    Raises:
        RecipeError: an unknown name or split.
        InputError: a path that is missing or holds no images.
        AccessError: a Hub dataset that cannot be reached: offline, gated or not found.
    """
    check_dataset(dataset)
    path = Path(dataset).expanduser()
    if dataset.startswith("zoo:"):  # its only split has both names
        return open_folder(dataset, _zoo(dataset), "test" if split == "validation" else split)
    if path.is_file():
        return open_files(dataset, [path])
    if path.is_dir():
        return open_folder(dataset, path, split)
    hub_id = SHORT_NAMES.get(dataset, dataset)
    if not HUB_ID.fullmatch(hub_id):
        raise InputError(f"dataset {dataset}: no such file or folder")
    return (open_stream if streaming else open_fetched)(dataset, hub_id, split)


def has_train_split(dataset: str, split: str) -> bool:
    """Return whether `dataset` may have a split "train" beside `split`; True for a Hub id, whose splits are not known here."""
    path = _zoo(dataset) if dataset.startswith("zoo:") else Path(dataset).expanduser()
    if split == "train" or path.is_file():
        return False
    if not path.is_dir():
        return True
    files = [file for suffix in KINDS for file in path.rglob(f"*{suffix}")]
    if files:
        return any(split_named_by(file.relative_to(path)) == "train" for file in files)
    return (path / "train").is_dir()


def _zoo(dataset: str) -> Path:
    return ZOO / dataset.removeprefix("zoo:")
