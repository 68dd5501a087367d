"""Labeled images from the Hub: read while they arrive, or downloaded first and read from its cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitdfq.common.errors import AccessError, RecipeError, VitdfqError, one_line
from vitdfq.data.hidden import visible_files
from vitdfq.data.local import KINDS, open_files
from vitdfq.data.source import Columns, Source
from vitdfq.data.splits import aliases, files_of_split, no_split, split_named_by

FROM_DISK = "give a folder of parquet files, of tar shards or of class folders with --set evaluate.dataset=PATH"
# Of sets without a number of rows in their metadata: a stream has no length, and a cache may be incomplete.
KNOWN_ROWS = {("ILSVRC/imagenet-1k", "validation"): 50_000, ("timm/imagenet-1k-wds", "validation"): 50_000}


def open_stream(name: str, hub_id: str, split: str) -> Source:
    """Open the split as a stream: rows are read while they arrive, and nothing is kept.

    Raises:
        RecipeError: no such split.
        AccessError: offline, gated or not found.
    """
    from datasets import load_dataset

    if not _online(name, hub_id):
        raise AccessError(f"dataset {name}: offline, {_page(hub_id)} could not be reached; {FROM_DISK}")
    with _one_line_errors(name, hub_id):
        rows = load_dataset(hub_id, split=split, streaming=True)
    splits = getattr(rows.info, "splits", None) or {}
    num_rows = splits[split].num_examples if split in splits else KNOWN_ROWS.get((hub_id, split))
    return Source(name, rows, num_rows or None, AccessError)  # a card that was not filled in says 0


def open_fetched(name: str, hub_id: str, split: str, columns: Columns) -> Source:
    """Open the split's files, and no others, from the Hub's cache: downloaded once, later read without a network.

    Raises:
        RecipeError: no such split.
        AccessError: gated, not found, or offline and not (all) in the cache.
        InputError: damaged files in the cache.
    """
    if _online(name, hub_id):
        return open_files(name, _fetch(name, hub_id, split), columns)
    source = open_files(name, _cached(name, hub_id, split), columns)
    expected = KNOWN_ROWS.get((hub_id, split), source.num_rows)
    if source.num_rows != expected:
        raise AccessError(f"dataset {name}: only {source.num_rows} of {expected} rows are in the cache; run once while online")
    return source


def _fetch(name: str, hub_id: str, split: str) -> list[Path]:
    from datasets import load_dataset_builder
    from huggingface_hub import snapshot_download

    with _one_line_errors(name, hub_id):
        splits = load_dataset_builder(hub_id).config.data_files or {}
        if split not in splits:
            raise no_split(f"dataset {name}", split, set(splits))
        files = [url.split("/", 5)[5] for url in splits[split]]  # hf://datasets/OWNER/NAME@REVISION/FILE
        folder = Path(snapshot_download(hub_id, repo_type="dataset", allow_patterns=files))
    return [folder / file for file in files]


def _cached(name: str, hub_id: str, split: str) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    missing = AccessError(f"dataset {name}: offline, and split {split!r} of {_page(hub_id)} is not in the cache; {FROM_DISK}")
    try:
        named = [f"*{alias}*" for alias in aliases(split)]  # other splits are not downloaded
        folder = Path(snapshot_download(hub_id, repo_type="dataset", allow_patterns=named, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise missing from error
    files = [file for file in visible_files(folder, KINDS) if split_named_by(file.relative_to(folder), split)]
    if not files:
        raise missing
    return files_of_split(folder, files, split)


def _online(name: str, hub_id: str) -> bool:
    from datasets import config

    from vitdfq.common.hub_connection import reachable

    with _one_line_errors(name, hub_id):  # an id that the Hub's client refuses
        return not config.HF_HUB_OFFLINE and reachable(hub_id, "dataset")


def _page(hub_id: str) -> str:
    from datasets import config

    return f"{config.HF_ENDPOINT}/datasets/{hub_id}"


@contextmanager
def _one_line_errors(name: str, hub_id: str) -> Iterator[None]:
    """Turn errors of the Hub, its client and the network into one line with a way out."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    page = _page(hub_id)
    try:
        yield
    except VitdfqError:
        raise
    except (DatasetNotFoundError, RepositoryNotFoundError) as error:
        if isinstance(error, GatedRepoError) or "gated" in str(error):
            why = f"it is gated: accept its terms on {page}, then run `hf auth login`"
        else:
            why = f"{page} not found, or private and no access with this token (`hf auth login`)"
        raise AccessError(f"dataset {name}: {why}; or {FROM_DISK}") from error
    except ValueError as error:  # split or configuration
        raise RecipeError(f"dataset {name}: {one_line(error)}") from error
    except Exception as error:  # the client and the network raise a dozen other types
        raise AccessError(f"dataset {name}: {page} could not be read ({one_line(error)}); {FROM_DISK}") from error
