"""Where a named set of labelled images comes from: opened, not yet checked."""

import re
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vitdfq.errors import AccessError, InputError, RecipeError
from vitdfq.pick import did_you_mean

ZOO = Path(__file__).parents[1] / "zoo"
SHORT_NAMES = {"imagenet-1k": "ILSVRC/imagenet-1k"}
# Hub streams that do not say how many rows they have.
KNOWN_ROWS = {("ILSVRC/imagenet-1k", "validation"): 50_000, ("timm/imagenet-1k-wds", "validation"): 50_000}
SAME_SPLIT = [{"validation", "val", "valid", "dev"}, {"test"}, {"train"}]
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
FROM_DISK = "give a folder of parquet files or of class folders with --set evaluate.dataset=PATH"


@dataclass(frozen=True)
class Source:
    """An opened set: an iterable of rows that knows its features, and what to call a failure while reading it."""

    name: str
    rows: Any  # datasets.Dataset or datasets.IterableDataset
    num_rows: int | None
    failed: type[Exception]


def check_dataset(dataset: str) -> None:
    """Refuse a name that cannot be a dataset, without looking at the disk or the network.

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


def open_source(dataset: str, split: str) -> Source:
    """Open the rows of `split`.

    Raises:
        RecipeError: an unknown name or split.
        InputError: a path that is missing or holds no images.
        AccessError: a Hub dataset that cannot be reached: offline, gated or not found.
    """
    check_dataset(dataset)
    path = Path(dataset).expanduser()
    if dataset.startswith("zoo:"):
        folder = ZOO / dataset.removeprefix("zoo:")  # its one split goes by both names, as ImageNet's validation set does
        return _parquet(dataset, _files_of_split(folder, "test" if split == "validation" else split))
    if path.is_file():
        return _parquet(dataset, [path])
    if path.is_dir():
        parquet = any(path.rglob("*.parquet"))
        return _parquet(dataset, _files_of_split(path, split)) if parquet else _class_folders(dataset, path, split)
    hub_id = SHORT_NAMES.get(dataset, dataset)
    if not HUB_ID.fullmatch(hub_id):
        raise InputError(f"dataset {dataset}: no such file or folder")
    return _hub(dataset, hub_id, split)


def has_train_split(dataset: str, split: str) -> bool:
    """Whether `dataset` has a split "train" beside `split`; of a Hub id only opening it can tell, so it may have one."""
    path = ZOO / dataset.removeprefix("zoo:") if dataset.startswith("zoo:") else Path(dataset).expanduser()
    if split == "train" or path.is_file():
        return False
    if not path.is_dir():
        return True
    files = list(path.rglob("*.parquet"))
    if files:
        return any(_split_named_by(file.relative_to(path)) == "train" for file in files)
    return (path / "train").is_dir()


def _parquet(name: str, files: list[Path]) -> Source:
    import pyarrow.parquet
    from datasets import load_dataset

    try:
        num_rows = sum(pyarrow.parquet.read_metadata(file).num_rows for file in files)
        # A stream, as ImageNet is from the Hub: nothing is copied to a cache. It asks for a cache folder all the same.
        data_files = {"rows": [str(file) for file in files]}
        with TemporaryDirectory() as cache:
            rows = load_dataset("parquet", data_files=data_files, split="rows", streaming=True, cache_dir=cache)
    except Exception as error:  # pyarrow and datasets have a dozen types for a damaged file
        raise InputError(f"dataset {name}: not readable as parquet ({one_line(error)})") from error
    return Source(name, rows, num_rows, InputError)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Parquet files whose name starts with the split, or in a folder named so; all, if no file names any split."""
    files = sorted(folder.rglob("*.parquet"))
    splits = {file: _split_named_by(file.relative_to(folder)) for file in files}
    wanted = _aliases(split)
    found = [file for file, named in splits.items() if named in wanted]
    if not found and not any(splits.values()):
        return files
    if not found:
        choices = sorted({named for named in splits.values() if named})
        raise RecipeError(f"{folder} has no split {split!r}; choices: {', '.join(choices)}")
    return found


def _split_named_by(path: Path) -> str | None:
    words = [re.split(r"[-._]", path.name)[0], *reversed(path.parent.parts)]
    return next((word for word in words if any(word in names for names in SAME_SPLIT)), None)


def _aliases(split: str) -> set[str]:
    return next((names for names in SAME_SPLIT if split in names), {split})


def _class_folders(name: str, folder: Path, split: str) -> Source:
    """Classes are the sorted names of the folders (for ImageNet: WNID order, as timm has it).

    Files come one of each class in turn, so that the first `num_images` of a sorted folder are not all of one class.
    """
    from datasets import ClassLabel, Dataset, Features, Image
    from PIL import Image as PILImage

    folder = next((folder / alias for alias in sorted(_aliases(split)) if (folder / alias).is_dir()), folder)
    endings = set(PILImage.registered_extensions())
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    turns = [
        (turn, label, str(file))
        for label, class_name in enumerate(classes)
        for turn, file in enumerate(sorted((folder / class_name).rglob("*")))
        if file.suffix.lower() in endings
    ]
    if not turns:
        raise InputError(f"dataset {name}: no parquet files and no class folders with images in {folder}")
    turns.sort()
    columns = {"image": [file for _, _, file in turns], "label": [label for _, label, _ in turns]}
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=classes)})
    return Source(name, Dataset.from_dict(columns, features=features), len(turns), InputError)


def _hub(name: str, hub_id: str, split: str) -> Source:
    from datasets import config, load_dataset
    from datasets.exceptions import DatasetNotFoundError

    from vitdfq.models.fetch import reachable

    page = f"{config.HF_ENDPOINT}/datasets/{hub_id}"
    if config.HF_HUB_OFFLINE or not reachable(config.HF_ENDPOINT):
        raise AccessError(f"dataset {name}: offline, {page} could not be reached; {FROM_DISK}")
    terms = f"if it is gated, accept its terms on {page} and run `hf auth login`; {FROM_DISK}"
    try:
        rows = load_dataset(hub_id, split=split, streaming=True)
    except DatasetNotFoundError as error:
        raise AccessError(f"dataset {name}: no access ({one_line(error)}); {terms}") from error
    except ValueError as error:  # split or configuration
        raise RecipeError(f"dataset {name}: {one_line(error)}") from error
    except Exception as error:  # whatever else the client, the server or the network comes up with
        raise AccessError(f"dataset {name}: {page} could not be read ({one_line(error)}); {terms}") from error
    splits = getattr(rows.info, "splits", None) or {}
    num_rows = splits[split].num_examples if split in splits else KNOWN_ROWS.get((hub_id, split))
    return Source(name, rows, num_rows or None, AccessError)


def one_line(error: BaseException, most: int = 200) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else text[:most] + " ..."
