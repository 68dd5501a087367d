"""Tar shards on disk: the files of a row share a name (webdataset), or lie in a folder for each class, as timm reads both."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from vitdfq.common.errors import InputError, RecipeError, one_line
from vitdfq.data.class_folders import natural
from vitdfq.data.columns import LABELS as USUAL
from vitdfq.data.hidden import image_suffixes, is_hidden
from vitdfq.data.source import WHOLE, Columns, Source

LABELS = ("cls", "json")  # suffixes of a row's label, the first that it has; timm reads both
IN_JSON = tuple(key for key in USUAL if key != "coarse_label")  # keys of a label; all classes count, not groups of them
Member = tuple[str, int, int]  # name, offset, size
Row = dict[str, Member]  # suffix, without the first dot and in lower case -> member


def open_shards(name: str, files: list[Path], columns: Columns) -> Source:
    """Open tar shards as one set, in this order.

    Args:
        name: of the set.
        files: the shards.
        columns: suffixes of the image and of the label, or the label's key in a row's JSON.

    Raises:
        InputError: a shard is damaged, or there are no images.
        RecipeError: several images in a row, or labels that cannot be read.
    """
    from datasets import ClassLabel, Features, Image, IterableDataset, Value

    shards = _Shards(name, files, columns)
    features: dict[str, Any] = {"image": Image(decode=False)}
    if shards.classes:
        features["label"] = ClassLabel(names=shards.classes)
    elif shards.first_label is not None:
        features["label"] = Value("int64" if isinstance(shards.first_label, int) else "string")
    rows = IterableDataset.from_generator(shards.rows, features=Features(features))
    return Source(name, rows, shards.num_rows, InputError, is_named=True)


class _Shards:
    """Reads the headers of all shards, to count rows and see the first; then row by row, one shard's headers at a time."""

    def __init__(self, name: str, files: list[Path], columns: Columns) -> None:
        self.name, self.files, self.columns = name, files, columns
        self.suffixes = {suffix.removeprefix(".") for suffix in image_suffixes()}
        self.num_rows, self.classes, self.first_label = 0, [], None
        folders, first = set(), None
        for file in files:
            try:
                rows = self.index(file)
            except (tarfile.TarError, OSError) as error:
                raise InputError(f"dataset {name}: not readable as webdataset ({file.name}: {one_line(error)})") from error
            self.num_rows += len(rows)
            folders |= {_folder(row) for row in rows}
            first = first or next(((file, row) for row in rows), None)
        if first is None:
            raise InputError(f"dataset {name}: no images in {', '.join(file.name for file in files)}")
        self.image_of(first[1])  # several images in a row are refused here
        if not columns.has_labels:
            return
        try:
            with first[0].open("rb") as shard:
                self.first_label = self.label_of(shard, first[1])
        except RecipeError:
            raise
        except ValueError as error:  # no UTF-8, no JSON
            raise InputError(f"dataset {name}: row 0 of {first[0].name} has a label that cannot be read ({error})") from error
        if self.first_label is None and columns.label is None and folders != {""}:
            self.classes = natural(folders)

    def index(self, file: Path) -> list[Row]:
        """The rows of a shard that hold an image: members by suffix; where no other member goes with an image, each is a row.

        Raises:
            RecipeError: an image whose suffix has two dots, in a row without another: it is not left out in silence.
        """
        members = _members(file)
        images = [member for member in members if _last_suffix(member[0]) in self.suffixes]
        of_images = {_key(name) for name, _, _ in images}
        if not any(_key(name) in of_images and _last_suffix(name) not in self.suffixes for name, _, _ in members):
            return [{_last_suffix(member[0]): member} for member in images]
        rows: dict[str, Row] = {}
        for member in members:
            rows.setdefault(_key(member[0]), {})[_suffix(member[0])] = member
        with_image = {
            key for key, row in rows.items() if any(suffix in self.suffixes for suffix in row) or self.columns.image in row
        }
        if left_out := [name for name, _, _ in images if _key(name) not in with_image]:
            raise RecipeError(
                f"dataset {self.name}: {left_out[0]} in {file.name} is no column png, jpg, ... but {_suffix(left_out[0])!r}, as "
                "the names of rows end at the first dot; rename it, or name the column with image_column"
            )
        return [rows[key] for key in rows if key in with_image]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield {"image": {"bytes", "path"}, "label"}; without a label where there is none."""
        numbers = {name: number for number, name in enumerate(self.classes)}
        for file in self.files:
            index = self.index(file)
            with file.open("rb") as shard:
                for row in index:
                    member = self.image_of(row)
                    content: dict[str, Any] = {"image": {"bytes": _read(shard, member), "path": member[0]}}
                    if self.classes:
                        content["label"] = numbers[_folder(row)]
                    elif self.first_label is not None:
                        content["label"] = self.label_of(shard, row)
                    yield content

    def image_of(self, row: Row) -> Member:
        column = self.columns.image
        images = [column.lower().removeprefix(".")] if column else [suffix for suffix in row if suffix in self.suffixes]
        if len(images) != 1 or images[0] not in row:
            choices = ", ".join(row)
            raise RecipeError(
                f"dataset {self.name}: {next(iter(row.values()))[0]} has no image {column!r}; choices of image_column: {choices}"
                if column
                else f"dataset {self.name}: several images in a row, {choices}; name one with image_column"
            )
        return row[images[0]]

    def label_of(self, shard: Any, row: Row) -> int | str | None:
        """The label, a number if it is one; None if the row has none."""
        column = self.columns.label
        if column is not None and column.lower() in row and column.lower() != "json":
            return _label(_read(shard, row[column.lower()]).decode())
        if column is None and "cls" in row:
            return _label(_read(shard, row["cls"]).decode())
        facts = json.loads(_read(shard, row["json"])) if "json" in row else {}
        if isinstance(facts, dict):
            for key in (column,) if column and column != "json" else IN_JSON:
                if key in facts:
                    return _label(facts[key])
        if column is not None:
            keys = [*(suffix for suffix in row if suffix not in self.suffixes), *(facts if isinstance(facts, dict) else ())]
            raise RecipeError(f"dataset {self.name}: no label {column!r}; choices of label_column: {', '.join(keys)}")
        return None


def _label(value: Any) -> Any:
    text = str(value).strip()
    return int(text) if WHOLE.fullmatch(text) else text


def _read(shard: Any, member: Member) -> bytes:
    shard.seek(member[1])
    return shard.read(member[2])


def _members(file: Path) -> list[Member]:
    """The visible files in a shard.

    Raises:
        tarfile.TarError: compressed (a row could not be found by its offset), damaged, or cut off, where `tarfile` just stops.
    """
    with file.open("rb") as opened:
        if opened.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise tarfile.ReadError("it is compressed; unpack it")
        opened.seek(0)
        with tarfile.open(fileobj=opened, mode="r:") as shard:
            members = [member for member in shard if member.isfile() and not is_hidden(member.name)]
            opened.seek(shard.offset)
            if any(end := opened.read(tarfile.BLOCKSIZE)) or len(end) < tarfile.BLOCKSIZE:
                raise tarfile.ReadError(f"damaged or cut off after {shard.offset} bytes")
    return [(member.name, member.offset_data, member.size) for member in members]


def _key(name: str) -> str:
    """The name of a row: up to the first dot after the folder, as webdataset defines it."""
    folder, _, last = name.rpartition("/")
    return f"{folder}/{last.partition('.')[0]}"


def _suffix(name: str) -> str:
    return PurePosixPath(name).name.partition(".")[2].lower()


def _last_suffix(name: str) -> str:
    return _suffix(name).rpartition(".")[2]


def _folder(row: Row) -> str:
    return PurePosixPath(next(iter(row.values()))[0]).parent.name
