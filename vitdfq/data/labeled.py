"""A checked set of images: columns `image` (encoded) and `label` (0 to the model's classes - 1, or -1 where there are none)."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from vitdfq.common.errors import InputError, RecipeError, one_line
from vitdfq.data.class_names import Classes, class_numbers, label_numbers, normalized
from vitdfq.data.columns import with_columns
from vitdfq.data.own_labels import own_numbers
from vitdfq.data.readers import closed_at_exit
from vitdfq.data.source import Columns, Source
from vitdfq.data.sources import open_source

NO_LABEL = -1


@dataclass(frozen=True)
class Labeled:
    """Rows {"image": {"bytes", "path"}, "label": int}, in order.

    Attributes:
        source: its columns are `image` and, if the set has labels, `label`.
        num_classes: of the model.
        number_of: from a set's label to the model's number of that class; raises ValueError for a label that is no class. None:
            the set has no labels, and each row's label is -1.
    """

    source: Source
    num_classes: int
    number_of: Callable[[Any], int] | None

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
                except RecipeError:
                    raise
                except Exception as error:  # a damaged file or a lost connection: a dozen libraries, each with its own types
                    raise self.source.failed(f"dataset {self.name}: row {index} cannot be read ({one_line(error)})") from error
                try:
                    label = NO_LABEL if self.number_of is None else self.number_of(row["label"])
                except ValueError as error:
                    raise RecipeError(f"dataset {self.name}: row {index} has label {row['label']!r}, {error}") from None
                yield {"image": row["image"], "label": label}


def load_labeled(
    dataset: str,
    split: str,
    classes: Classes | int | None,
    streaming: bool = True,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    match_names: bool = True,
) -> Labeled:
    """Open split `split` of `dataset` and check it against a model's classes; nothing is decoded.

    Args:
        dataset: `zoo:fashion-mnist` (part of the package); `imagenet-1k`; a Hub id `owner/name`; a folder of parquet files or of
            tar shards; a folder with a list of files, or the list (.csv, .tsv); a folder of class folders, or of one folder for
            each split with class folders inside; a folder of images, which have no labels.
        split: for example "validation". The zoo's set has "test", also called "validation".
        classes: of the model, or only their number; None: the set's own, equal numbers for equal classes in all of its splits.
        streaming: read a Hub set while it arrives, and keep nothing; False: download the split into the Hub's cache first.
        image_column: of the images; None: it is looked for. In tar shards it is a suffix.
        label_column: of the labels; None: it is looked for; "none": they are not read.
        match_names: classes whose names the set and the model know are matched; False: they are numbered in order.

    Raises:
        RecipeError: unknown name or split, columns that cannot be found, or other classes.
        InputError: a missing or damaged file or folder, or no images.
        AccessError: a Hub dataset that cannot be reached: offline, gated or not found.
    """
    is_own = classes is None
    classes = Classes(classes or 0) if classes is None or isinstance(classes, int) else classes
    columns = Columns(image_column, label_column)
    source = open_source(dataset, split, streaming, classes, columns)
    if source.num_rows == 0:
        raise InputError(f"dataset {dataset}: split {split!r} is empty")
    rows = source.rows if source.is_named else with_columns(dataset, source.rows, columns, classes.num)
    if "label" not in rows.column_names:
        number_of = None
    elif is_own:
        number_of = own_numbers(dataset, rows.features["label"])
    else:
        number_of = _numbers(dataset, rows.features["label"], classes, match_names)
    return Labeled(replace(source, rows=rows), classes.num, number_of)


def _numbers(dataset: str, feature: Any, classes: Classes, match_names: bool) -> Callable[[Any], int]:
    """Return the function from a label of the set to the model's number.

    Raises:
        RecipeError: other classes than the model's, or labels that are neither numbers nor names.
    """
    from datasets import ClassLabel

    dtype = str(getattr(feature, "dtype", ""))
    if isinstance(feature, ClassLabel):
        numbers = class_numbers(dataset, feature.names, classes, match_names)
        return lambda label: numbers[_checked(label, len(numbers))]
    if dtype.startswith(("int", "uint")):
        return lambda label: _checked(label, classes.num)
    if dtype in ("string", "large_string"):
        return _TextLabels(classes).number_of
    raise RecipeError(f"dataset {dataset}: column label must hold whole numbers or names of classes, found {feature}")


def _checked(label: Any, num_classes: int) -> int:
    if not isinstance(label, int) or not 0 <= label < num_classes:
        raise ValueError(
            f"the model has classes 0 to {num_classes - 1}; is this split labeled? (label_column: none reads no labels)"
        )
    return label


class _TextLabels:
    """Reads labels that are text."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.numbers: dict[str, int] | None = None  # of the normalized names
        self.is_first = True

    def number_of(self, label: str | None) -> int:
        """The number of the class that a text names, or else writes.

        Raises:
            ValueError: it is neither.
        """
        text, classes = (label or "").strip(), self.classes
        if self.is_first:  # ImageNet's names are known without the model's help, if the labels are WordNet ids
            self.numbers, self.is_first = label_numbers(classes, [text]), False
        if self.numbers and normalized(text) in self.numbers:
            return self.numbers[normalized(text)]
        if text.isdecimal():
            return _checked(int(text), classes.num)
        if self.numbers is None:
            raise ValueError("a name, but the model does not name its classes; give their numbers")
        names = ", ".join((classes.names or ())[:5])
        raise ValueError(f"none of the model's {classes.num} classes: {names}{', ...' if classes.num > 5 else ''}")
