"""Images on disk: parquet files, tar shards, a list of files, a folder for each class, or a folder of images."""

from pathlib import Path
from tempfile import TemporaryDirectory

from vitdfq.common.errors import InputError, RecipeError, one_line
from vitdfq.data import lists
from vitdfq.data.class_folders import open_class_folders
from vitdfq.data.class_names import Classes
from vitdfq.data.hidden import visible_files, visible_folders
from vitdfq.data.source import Columns, Source
from vitdfq.data.splits import files_of_split, folder_of_split
from vitdfq.data.tar_shards import open_shards

KINDS = {".parquet", ".tar"}  # suffixes, in lower case


def open_folder(name: str, folder: Path, split: str, classes: Classes, columns: Columns) -> Source:
    """Open split `split` of a folder of parquet files, else tar shards, else a list, else class folders or images.

    Raises:
        RecipeError: no such split.
        InputError: damaged files, or no images.
    """
    files = visible_files(folder, KINDS)
    for suffix in (".parquet", ".tar"):
        of_kind = [file for file in files if file.suffix.lower() == suffix]
        if of_kind:
            return open_files(name, files_of_split(folder, of_kind, split), columns)
    if found := lists.find_lists(folder, columns):
        return lists.open_list(name, _list_of_split(name, folder, found, split), split, columns)
    inner = folder_of_split(folder, split)
    found = lists.find_lists(inner, columns) if inner != folder else []
    if len(found) == 1:  # `metadata.csv` in the split's folder
        return lists.open_list(name, found[0], None, columns)
    if len(visible_folders(inner)) < 2:  # no classes: a table of labels would be left out in silence
        lists.check_no_list(name, folder, columns)
    return open_class_folders(name, inner, classes, columns)


def _list_of_split(name: str, folder: Path, found: list[Path], split: str) -> Path:
    chosen = files_of_split(folder, found, split) if len(found) > 1 else found
    if len(chosen) > 1:
        raise RecipeError(f"dataset {name}: several lists, {', '.join(path.name for path in chosen)}; give the path of one")
    return chosen[0]


def open_file(name: str, file: Path, split: str, columns: Columns) -> Source:
    """Open one file as a whole set.

    Raises:
        RecipeError: its name is that of another split.
        InputError: it is damaged, or none of the kinds that are read.
    """
    if file.suffix.lower() in lists.SUFFIXES:
        return lists.open_list(name, file, split, columns)
    return open_files(name, files_of_split(file.parent, [file], split) if file.suffix.lower() in KINDS else [file], columns)


def open_files(name: str, files: list[Path], columns: Columns) -> Source:
    """Open files of one kind as one set, in this order.

    Raises:
        InputError: one of them is damaged, or neither parquet nor tar.
    """
    kind = files[0].suffix.lower()
    if kind not in KINDS:
        kinds = ", ".join(sorted(KINDS | lists.SUFFIXES))
        raise InputError(f"dataset {name}: {files[0]} is none of {kinds}, nor a folder")
    return open_shards(name, files, columns) if kind == ".tar" else _open_parquet(name, files)


def _open_parquet(name: str, files: list[Path]) -> Source:
    from datasets import load_dataset
    from pyarrow.parquet import read_metadata

    try:
        num_rows = sum(read_metadata(file).num_rows for file in files)
        # A stream, as from the Hub: nothing is copied to a cache, although `datasets` needs a folder for one.
        data_files = {"rows": [str(file) for file in files]}
        with TemporaryDirectory() as cache:
            rows = load_dataset("parquet", data_files=data_files, split="rows", streaming=True, cache_dir=cache)
    except Exception as error:  # pyarrow and datasets raise a dozen types for a damaged file
        raise InputError(f"dataset {name}: not readable as parquet ({one_line(error)})") from error
    return Source(name, rows, num_rows, InputError)
