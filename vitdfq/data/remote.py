"""Labelled images from the Hub: read while they arrive, or fetched first and read from its cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitdfq.common.errors import AccessError, RecipeError, VitdfqError, one_line
from vitdfq.data.local import KINDS, open_files
from vitdfq.data.source import FROM_DISK, Source
from vitdfq.data.splits import aliases, files_of_split, no_split, split_named_by

# Of sets that do not say how many rows they have when they are streamed, or whether all are in the cache.
KNOWN_ROWS = {("ILSVRC/imagenet-1k", "validation"): 50_000, ("timm/imagenet-1k-wds", "validation"): 50_000}


def open_stream(name: str, hub_id: str, split: str) -> Source:
    """Rows as they arrive: nothing is kept.

    Raises:
        RecipeError: no such split.
        AccessError: offline, gated or not found.
    """
    from datasets import load_dataset

    if not _online():
        raise AccessError(f"dataset {name}: offline, {_page(hub_id)} could not be reached; {FROM_DISK}")
    with _asking(name, hub_id):
        rows = load_dataset(hub_id, split=split, streaming=True)
    splits = getattr(rows.info, "splits", None) or {}
    num_rows = splits[split].num_examples if split in splits else KNOWN_ROWS.get((hub_id, split))
    return Source(name, rows, num_rows or None, AccessError)


def open_fetched(name: str, hub_id: str, split: str) -> Source:
    """The split's files, and no others, in the Hub's cache: fetched once, later read without a network.

    Raises:
        RecipeError: no such split.
        AccessError: gated, not found, or offline and not (all) in the cache.
        InputError: damaged files in the cache.
    """
    if _online():
        return open_files(name, _fetch(name, hub_id, split))
    source = open_files(name, _cached(name, hub_id, split))
    expected = KNOWN_ROWS.get((hub_id, split), source.num_rows)
    if source.num_rows != expected:
        raise AccessError(f"dataset {name}: only {source.num_rows} of {expected} rows are in the cache; run once while online")
    return source


def _fetch(name: str, hub_id: str, split: str) -> list[Path]:
    from datasets import load_dataset_builder
    from huggingface_hub import snapshot_download

    with _asking(name, hub_id):
        found = load_dataset_builder(hub_id).config.data_files or {}
        if split not in found:
            raise no_split(f"dataset {name}", split, set(found))
        files = [url.split("/", 5)[5] for url in found[split]]  # hf://datasets/OWNER/NAME@REVISION/FILE
        folder = Path(snapshot_download(hub_id, repo_type="dataset", allow_patterns=files))
    return [folder / file for file in files]


def _cached(name: str, hub_id: str, split: str) -> list[Path]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    missing = AccessError(f"dataset {name}: offline, and split {split!r} of {_page(hub_id)} is not in the cache; {FROM_DISK}")
    try:
        named = [f"*{alias}*" for alias in aliases(split)]  # of other splits nothing was fetched
        folder = Path(snapshot_download(hub_id, repo_type="dataset", allow_patterns=named, local_files_only=True))
    except LocalEntryNotFoundError as error:
        raise missing from error
    files = sorted(file for file in folder.rglob("*") if file.suffix in KINDS and split_named_by(file.relative_to(folder)))
    if not files:
        raise missing
    return files_of_split(folder, files, split)


def _online() -> bool:
    from datasets import config

    from vitdfq.common.hub_connection import reachable

    return not config.HF_HUB_OFFLINE and reachable(config.HF_ENDPOINT)


def _page(hub_id: str) -> str:
    from datasets import config

    return f"{config.HF_ENDPOINT}/datasets/{hub_id}"


@contextmanager
def _asking(name: str, hub_id: str) -> Iterator[None]:
    """Say what is wrong between here and the Hub in one line with a way out."""
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
    except Exception as error:  # whatever else the client, the server or the network comes up with
        raise AccessError(f"dataset {name}: {page} could not be read ({one_line(error)}); {FROM_DISK}") from error
