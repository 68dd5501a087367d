"""What every reader returns: the opened rows of a split."""

import re
from dataclasses import dataclass
from typing import Any

WHOLE = re.compile(r"-?\d+")  # a label that is a number
NO_LABELS = "none"  # as the name of the label column: the set's labels are not read


@dataclass(frozen=True)
class Source:
    """An opened set of images, on disk or on the Hub; its classes are not checked yet.

    Attributes:
        name: as the caller spelled it.
        rows: a datasets.Dataset or datasets.IterableDataset.
        num_rows: None if it is not known.
        failed: the error to raise when a row cannot be read.
        is_named: whether its columns are `image` and `label` already; otherwise they are to be found.
    """

    name: str
    rows: Any
    num_rows: int | None
    failed: type[Exception]
    is_named: bool = False


@dataclass(frozen=True)
class Columns:
    """The names of the columns to read; None: they are looked for. `label` may be "none"."""

    image: str | None = None
    label: str | None = None

    @property
    def has_labels(self) -> bool:
        return self.label != NO_LABELS


def image_files(name: str, files: list[str], labels: list[Any] | None, feature: Any, failed: type[Exception]) -> Source:
    """Return the source of image files and their labels, which `feature` describes; None: there are none."""
    from datasets import Dataset, Features, Image

    columns: dict[str, list[Any]] = {"image": files} | ({} if labels is None else {"label": labels})
    features = Features({"image": Image(decode=False)} | ({} if labels is None else {"label": feature}))
    return Source(name, Dataset.from_dict(columns, features=features), len(files), failed, is_named=True)
