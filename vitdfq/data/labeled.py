"""A checked set of labeled images: columns `image` (encoded) and `label` (0 to the model's classes - 1)."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from vitdfq.common.errors import RecipeError, one_line
from vitdfq.data.local import Source
from vitdfq.data.readers import closed_at_exit
from vitdfq.data.sources import open_source

COLUMN_ALIASES = {"jpg": "image", "cls": "label"}  # webdataset's names, as in timm/imagenet-1k-wds


@dataclass(frozen=True)
class Labeled:
    """Rows {"image": {"bytes", "path"}, "label": int}, in order."""

    source: Source
    num_classes: int

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def num_rows(self) -> int | None:
        """None if the source does not state it."""
        return self.source.num_rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self.rows()

    def rows(self) -> Generator[dict[str, Any], None, None]:
        """Yield the rows; close the generator to release the reader."""
        reader: Any = iter(self.source.rows)
        with closed_at_exit(reader) as rows:
            for index in count():
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except Exception as error:  # a damaged file or a lost connection: a dozen libraries, each with its own types
                    raise self.source.failed(f"dataset {self.name}: row {index} cannot be read ({one_line(error)})") from error
                label = row["label"]
                if not isinstance(label, int) or not 0 <= label < self.num_classes:
                    raise RecipeError(
                        f"dataset {self.name}: row {index} has label {label!r}, the model has classes 0 to "
                        f"{self.num_classes - 1}; is this split labeled?"
                    )
                yield row


def load_labeled(dataset: str, split: str, num_classes: int, streaming: bool = True) -> Labeled:
    """Open split `split` of `dataset` and check it against a model of `num_classes` classes; nothing is decoded.

    Args:
        dataset: `zoo:fashion-mnist` (part of the package); `imagenet-1k`; a Hub id `owner/name`; a folder of parquet files or of
            tar shards; a folder of class folders, or of one folder for each split with class folders inside.
        split: for example "validation". The zoo's set has "test", also called "validation".
        num_classes: of the model.
        streaming: read a Hub set while it arrives, and keep nothing; False: download the split into the Hub's cache first.

    Raises:
        RecipeError: unknown name or split, columns other than image and label, or another number of classes.
        InputError: a missing or damaged file or folder.
        AccessError: a Hub dataset that cannot be reached: offline, gated or not found.
    """
    source = open_source(dataset, split, streaming)
    rows = _with_columns(dataset, source.rows)
    _check_classes(dataset, rows.features["label"], num_classes)
    return Labeled(replace(source, rows=rows), num_classes)


def _with_columns(dataset: str, rows: Any) -> Any:
    """Return rows with two columns: image, still encoded, and label."""
    names = rows.column_names
    if names is None:  # a stream without a schema: its first row has the columns
        rows = rows._resolve_features()
        names = rows.column_names
    renamed = {old: new for old, new in COLUMN_ALIASES.items() if old in names and new not in names}
    missing = {"image", "label"} - set(names) - set(renamed.values())
    if missing:
        raise RecipeError(f"dataset {dataset}: columns image and label are needed; found: {', '.join(names)}")
    original = {new: old for old, new in renamed.items()}
    rows = _encoded(dataset, rows, original.get("image", "image"))  # first: a stream with renamed columns decodes its images
    return rows.rename_columns(renamed).select_columns(["image", "label"])


def _encoded(dataset: str, rows: Any, column: str) -> Any:
    """Leave images encoded: `datasets` would rotate them by EXIF when it decodes, and timm's reader does not."""
    from datasets import Image

    feature = rows.features[column]
    is_bytes = getattr(feature, "dtype", None) in ("binary", "large_binary")
    is_struct = isinstance(feature, dict) and set(feature) == {"bytes", "path"}
    if not (isinstance(feature, Image) or is_bytes or is_struct):
        raise RecipeError(f"dataset {dataset}: column {column} must hold images, found {feature}")
    return rows.cast_column(column, Image(decode=False))


def _check_classes(dataset: str, feature: Any, num_classes: int) -> None:
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        if feature.num_classes != num_classes:
            raise RecipeError(f"dataset {dataset} has {feature.num_classes} classes, the model has {num_classes}")
    elif "int" not in str(getattr(feature, "dtype", "")):
        raise RecipeError(f"dataset {dataset}: column label must hold whole numbers, found {feature}")
