"""Lists of files: a CSV (commas, tabs or semicolons) of image files and their labels; paths are relative to the list."""

import csv
from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.data.columns import LABELS
from vitdfq.data.hidden import image_suffixes, is_hidden
from vitdfq.data.source import WHOLE, Columns, Source, image_files
from vitdfq.data.splits import aliases, files_of_split, no_split, one_of

SUFFIXES = {".csv", ".tsv"}
SPLITS = ("split", "set", "subset")  # columns that say which split a row belongs to
DELIMITERS = ",\t;"  # the one that the first line has most of
TRIED = 20  # rows, to find the column of files; one that is missing is named when it is read
Rows = list[list[str]]


def find_lists(folder: Path, columns: Columns) -> list[Path]:
    """Return the lists directly inside `folder` that name image files which exist; other tables are left out."""
    return [path for path in _tables(folder) if _image_column(path, *_read(path), columns) is not None]


def check_no_list(name: str, folder: Path, columns: Columns) -> None:
    """Refuse a folder with a table that names image files: it was meant as the list, but `find_lists` could not take it.

    Raises:
        RecipeError: the table has no such column.
        InputError: none of the files exist; the error names the table and a file.
    """
    for path in _tables(folder):
        header, rows = _read(path)
        named = [cell.strip() for row in rows[:TRIED] for cell in row if Path(cell.strip()).suffix.lower() in image_suffixes()]
        if named and columns.image not in (None, *header):
            choices = ", ".join(header)
            raise RecipeError(f"dataset {name}: {path.name} has no column {columns.image!r}; choices of image_column: {choices}")
        if named and not any((folder / cell).exists() for cell in named):
            raise InputError(
                f"dataset {name}: {path.name} names {named[0]}, which does not exist; paths are relative to the list"
            )


def open_list(name: str, file: Path, split: str | None, columns: Columns) -> Source:
    """Open a list; rows of other splits are left out if a column says the split.

    Args:
        name: of the set.
        file: the list.
        split: None: all rows, as the list lies in the split's folder.
        columns: as the caller names them.

    Raises:
        InputError: it cannot be read, is empty, or names no files that exist.
        RecipeError: no such split or column; a row without a label.
    """
    from datasets import Value

    header, rows = _read(file)
    image = _image_column(file, header, rows, columns)
    if image is None:
        wanted = f"column {columns.image!r}" if columns.image else "no column"
        raise InputError(
            f"dataset {name}: {file.name} has {wanted} of image files that exist beside it; columns: {', '.join(header)} "
            "(image_column names one; paths are relative to the list)"
        )
    numbered = [(number, row) for number, row in enumerate(rows) if any(cell.strip() for cell in row)]
    where = next((header.index(column) for column in header if column.lower() in SPLITS), None)
    if where is None and split is not None:
        files_of_split(file.parent, [file], split)  # refuses a list that is called by another split
    elif where is not None and split is not None:
        splits = {number: _cell(row, where).lower() for number, row in numbered}
        one = one_of(f"dataset {name}", split, set(splits.values()) & aliases(split))
        if one is None:
            raise no_split(f"dataset {name}", split, set(splits.values()))
        numbered = [(number, row) for number, row in numbered if splits[number] == one]
    files = [str(file.parent / _cell(row, image)) for _, row in numbered]
    label = _label_column(name, header, {image, where}, columns)
    if label is None:
        return image_files(name, files, None, None, InputError)
    labels = [_cell(row, label) for _, row in numbered]
    if "" in labels:
        raise RecipeError(f"dataset {name}: row {numbered[labels.index('')][0]} has no {header[label]}")
    are_numbers = all(WHOLE.fullmatch(text) for text in labels)
    feature = Value("int64" if are_numbers else "string")
    return image_files(name, files, [int(text) for text in labels] if are_numbers else labels, feature, InputError)


def _tables(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not is_hidden(path.name))


def _read(file: Path) -> tuple[list[str], Rows]:
    """Return the header and the rows; a list whose first row names a file has no header: its columns are image and label.

    Raises:
        InputError: not a table of text, or empty.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            first = opened.readline()
            opened.seek(0)
            rows = list(csv.reader(opened, delimiter=max(DELIMITERS, key=first.count)))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: not readable as a list ({error})") from error
    if not rows or not rows[0]:
        raise InputError(f"{file}: the list is empty")
    if any((file.parent / cell).is_file() for cell in rows[0] if cell.strip()):
        return ["image", "label", *(f"column {number}" for number in range(3, 1 + len(rows[0])))][: len(rows[0])], rows
    return [cell.strip() for cell in rows[0]], rows[1:]


def _image_column(file: Path, header: list[str], rows: Rows, columns: Columns) -> int | None:
    """Return the column whose first entries, or some of them, are files beside the list."""
    for index, column in enumerate(header):
        entries = [_cell(row, index) for row in rows[:TRIED]]
        if columns.image in (None, column) and any(entry and (file.parent / entry).is_file() for entry in entries):
            return index
    return None


def _label_column(name: str, header: list[str], taken: set[int | None], columns: Columns) -> int | None:
    """Return the column of labels: the named one, one with a usual name, or the only other one; None if there is no other."""
    if not columns.has_labels:
        return None
    left = [index for index in range(len(header)) if index not in taken]
    choices = ", ".join(header[index] for index in left)
    if columns.label is not None:
        if columns.label not in header:
            raise RecipeError(f"dataset {name}: no column {columns.label!r}; choices of label_column: {choices}")
        return header.index(columns.label)
    usual = [index for index in left if header[index].lower() in LABELS]
    if len(usual) == 1 or (len(left) == 1 and not usual):
        return (usual or left)[0]
    if left:
        raise RecipeError(f"dataset {name}: which column holds the labels? choices of label_column: {choices}, none")
    return None


def _cell(row: list[str], index: int) -> Any:
    return row[index].strip() if index < len(row) else ""
