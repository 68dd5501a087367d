"""What an opened set of labelled images is, before it is checked."""

from dataclasses import dataclass
from typing import Any

FROM_DISK = "give a folder of parquet files, of tar shards or of class folders with --set evaluate.dataset=PATH"


@dataclass(frozen=True)
class Source:
    """An opened set: an iterable of rows that knows its features, and what to call a failure while reading it."""

    name: str
    rows: Any  # datasets.Dataset or datasets.IterableDataset
    num_rows: int | None
    failed: type[Exception]
