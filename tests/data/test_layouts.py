"""Folders, tar shards and lists as people have them: the right numbers, or one line."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from pictures import picture, png, write_folders, write_parquet
from timm.data.readers.reader_image_folder import ReaderImageFolder

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.data import Classes, batches, load_labeled
from vitdfq.data.hidden import is_hidden

ANIMALS = Classes(3, ("ant", "bee", "cat"))
NUMBERED = ["class_1", "class_2", "class_10"]


def labels_of(dataset, split="validation", classes: Classes | int = 3, **options) -> list[int]:
    labeled = load_labeled(str(dataset), split, classes, **options)
    labels = [row["label"] for row in labeled]
    assert labeled.num_rows == len(labels)
    return labels


def refusal(dataset, split="validation", classes: Classes | int = 3, error: type[Exception] = RecipeError, **options) -> str:
    with pytest.raises(error) as caught:
        labels_of(dataset, split, classes, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_classes(root: Path, names: list[str], inner: str = "") -> Path:
    for number, name in enumerate(names):
        (root / name / inner).mkdir(parents=True)
        picture(number).save(root / name / inner / "x.png")
    return root


def write_tar(path: Path, entries: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as shard:
        for name, content in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path.parent


# Folders


def test_class_folders_are_in_timms_natural_order(tmp_path):
    write_classes(tmp_path, NUMBERED)
    names = load_labeled(str(tmp_path), "validation", 3).source.rows.features["label"].names
    assert (
        names == NUMBERED and {name: index for index, name in enumerate(names)} == ReaderImageFolder(str(tmp_path)).class_to_idx
    )


def test_class_folders_have_the_models_numbers(tmp_path):
    write_folders(tmp_path)
    assert labels_of(tmp_path, classes=Classes(3, ("cat", "Ant", "bee"))) == [1, 2, 0] * 2
    assert "'cat' is none of the model's, 'dog' none of its" in refusal(tmp_path, classes=Classes(3, ("ant", "bee", "dog")))
    assert labels_of(tmp_path, classes=Classes(3, ("ant", "bee", "dog")), match_names=False) == [0, 1, 2] * 2


def test_folders_inside_the_classes(tmp_path):
    """As Tiny ImageNet's `images` folders; or groups of classes, where timm takes the inner folders."""
    assert labels_of(write_classes(tmp_path / "a", ["ant", "bee", "cat"], inner="images")) == [0, 1, 2]
    write_classes(tmp_path / "b/insects", ["ant", "bee"])
    write_classes(tmp_path / "b/mammals", ["cat"])
    assert labels_of(tmp_path / "b") == [0, 1, 2]
    assert labels_of(tmp_path / "b", classes=2) == [0, 1, 0]  # a model of the groups: a turn of each, then the second ant


def test_a_class_without_images_is_counted_where_the_model_has_it(tmp_path):
    write_folders(tmp_path)
    (tmp_path / "aardvark").mkdir()
    assert labels_of(tmp_path) == [0, 1, 2] * 2  # as timm numbers them
    assert labels_of(tmp_path, classes=4) == [1, 2, 3] * 2


def test_what_systems_and_editors_leave_is_ignored(tmp_path):
    write_folders(tmp_path)
    for folder in (".ipynb_checkpoints", "@eaDir", "__MACOSX", "ant/@eaDir"):
        (tmp_path / folder).mkdir()
        picture(9).save(tmp_path / folder / "x.png")
    for file in (".DS_Store", "Thumbs.db", "desktop.ini", "ant/._0.png", "ant/.DS_Store", "ant/about.pdf"):
        (tmp_path / file).write_bytes(b"no image")
    assert labels_of(tmp_path) == [0, 1, 2] * 2
    write_parquet(tmp_path / "p/val.parquet")
    (tmp_path / "p/._val.parquet").write_bytes(b"no parquet")
    assert len(labels_of(tmp_path / "p")) == 7
    assert is_hidden("a/.b/c") and is_hidden("__MACOSX/x") and not is_hidden("a/b.c") and not is_hidden("./a")


def test_a_folder_of_images_has_no_labels(tmp_path):
    for number in range(3):
        picture(number).save(tmp_path / f"{number}.PNG")
    assert labels_of(tmp_path) == [-1, -1, -1]
    write_folders(tmp_path / "classes")
    assert labels_of(tmp_path / "classes", label_column="none") == [-1] * 6
    assert "label_column: none reads it without labels" in refusal(tmp_path / "classes", classes=7)


# Splits


def test_a_folder_without_splits_takes_only_their_usual_names(tmp_path, caplog):
    write_folders(tmp_path)
    assert len(labels_of(tmp_path, "validation")) == 6 and not caplog.text
    assert len(labels_of(tmp_path, "test")) == 6 and "has no splits: all of it is read as split 'test'" in caplog.text
    write_parquet(tmp_path / "p/x.parquet")
    for dataset in (tmp_path, tmp_path / "p", tmp_path / "p/x.parquet"):
        assert "did you mean 'validation'?; choices: validation, test, train" in refusal(dataset, "valdiation")
        assert "parts of splits are not read; write split: train and num_images: N" in refusal(dataset, "train[:100]")
        assert "split 'all' names no split" in refusal(dataset, "all")


def test_a_split_that_is_not_there(tmp_path):
    write_classes(tmp_path / "a/val", ["ant", "bee", "cat"])
    (tmp_path / "a/notes").mkdir()
    assert "has no split 'test'; choices: val" in refusal(tmp_path / "a", "test")
    assert labels_of(tmp_path / "a", "VALIDATION") == [0, 1, 2]
    write_parquet(tmp_path / "train.parquet")
    assert "no split 'validation'; choices: train" in refusal(tmp_path / "train.parquet")
    write_parquet(tmp_path / "b/holdout-0.parquet")
    write_parquet(tmp_path / "b/train-0.parquet", [0])
    assert len(labels_of(tmp_path / "b", "holdout")) == 7


def test_several_names_of_one_split_are_not_mixed(tmp_path):
    for number, name in enumerate(["dev", "validation", "train"]):
        write_parquet(tmp_path / f"parquet/{name}.parquet", [number])
        write_classes(tmp_path / "folders" / name, NUMBERED[: number + 1])
    (tmp_path / "list.csv").write_text("image,label,split\n0.png,0,dev\n0.png,1,validation\n")
    picture(0).save(tmp_path / "0.png")
    for dataset in (tmp_path / "parquet", tmp_path / "list.csv"):
        assert labels_of(dataset, "dev") == [0] and labels_of(dataset) == labels_of(dataset, "VALIDATION") == [1]
        assert "has several splits for 'val'; choices of split: dev, validation" in refusal(dataset, "val")
    assert labels_of(tmp_path / "folders", "dev", classes=1) == [0] and labels_of(tmp_path / "folders", classes=2) == [0, 1]
    assert "has several splits for 'val'; choices of split: dev, validation" in refusal(tmp_path / "folders", "val")


def test_a_class_may_be_called_like_a_split(tmp_path):
    assert labels_of(write_classes(tmp_path, ["car", "plane", "train"]), "train") == [0, 1, 2]


def test_a_split_without_rows_is_said_to_be_empty(tmp_path):
    write_parquet(tmp_path / "x.parquet", [])
    assert "split 'validation' is empty" in refusal(tmp_path, error=InputError)


# Columns


def write_columns(path: Path, **features) -> Path:
    """One row: an image in each column of images, 1 in each other one."""
    values = {
        name: [{"bytes": png(picture(0)), "path": None} if isinstance(kind, Image) else 1] for name, kind in features.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(values, features=Features(features)).to_parquet(path)
    return path


@pytest.mark.parametrize(
    "features",
    [
        {"img": Image(), "label": ClassLabel(num_classes=3)},  # CIFAR-10
        {"image": Image(), "labels": ClassLabel(num_classes=3)},  # beans
        {"img": Image(), "fine_label": ClassLabel(num_classes=3), "coarse_label": ClassLabel(num_classes=2)},  # CIFAR-100
        {"image": Image(), "mask": Image(), "label": Value("int64"), "id": Value("int64")},
        {"photograph": Image(), "kind": ClassLabel(num_classes=3)},  # by their types
        {"PNG": Image(), "Target": Value("int32")},
        {"image": Image(), "label": ClassLabel(num_classes=2), "species": ClassLabel(num_classes=3)},
    ],
)
def test_columns_are_found(tmp_path, features):
    assert labels_of(write_columns(tmp_path / "x.parquet", **features)) == [1]


def test_columns_that_could_be_several_are_refused_with_the_choices(tmp_path):
    labels = {"fine_label": ClassLabel(num_classes=3), "coarse_label": ClassLabel(num_classes=2)}
    file = write_columns(tmp_path / "a.parquet", img=Image(), **labels)
    assert "choices of label_column: fine_label (3 classes), coarse_label (2 classes)" in refusal(file, classes=7)
    assert labels_of(file, classes=2, label_column="coarse_label") == [1]
    assert "no column 'foo'; choices of label_column: img, fine_label, coarse_label" in refusal(file, label_column="foo")
    file = write_columns(tmp_path / "b.parquet", left=Image(), right=Image(), label=ClassLabel(num_classes=3))
    assert "choices of image_column: left, right" in refusal(file)
    assert labels_of(file, image_column="right") == [1]
    file = write_columns(tmp_path / "c.parquet", image=Image(), number=Value("int64"))
    assert "label_column names another; label_column: none reads images without labels" in refusal(file)
    assert labels_of(file, label_column="number") == [1] and labels_of(file, label_column="none") == [-1]
    assert labels_of(write_columns(tmp_path / "d.parquet", image=Image())) == [-1]


def test_labels_that_are_text(tmp_path):
    write_parquet(tmp_path / "x.parquet", labels=["bee", "Cat", "ant"], label=Value("string"))
    assert labels_of(tmp_path, classes=ANIMALS) == [1, 2, 0]
    assert "row 0 has label 'bee', a name, but the model does not name its classes" in refusal(tmp_path)
    assert "none of the model's 3 classes: x, y, z" in refusal(tmp_path, classes=Classes(3, ("x", "y", "z")))
    write_parquet(tmp_path / "n/x.parquet", labels=["2", "0"], label=Value("string"))
    assert labels_of(tmp_path / "n") == [2, 0]
    write_parquet(tmp_path / "w/x.parquet", labels=["n01443537"], label=Value("string"))
    assert labels_of(tmp_path / "w", classes=1000) == [1]


# Tar shards


def test_tar_shards_of_any_format(tmp_path):
    for suffix in ("png", "webp", "jpeg", "JPG"):
        entries = {
            f"{row}.{kind}": content for row in range(3) for kind, content in ((suffix, png(picture(row))), ("cls", b"%d" % row))
        }
        left = {"._0.png": b"x", "__MACOSX/0.png": b"x", ".DS_Store": b"x"}
        assert labels_of(write_tar(tmp_path / suffix / "val-0.tar", entries | left)) == [0, 1, 2]
    mixed = {"a.png": png(picture(0)), "a.cls": b"2", "b.JPEG": png(picture(1)), "b.cls": b"1"}
    assert labels_of(write_tar(tmp_path / "mixed/VAL.TAR", mixed)) == [2, 1]


def test_labels_of_tar_shards(tmp_path):
    image = png(picture(0))
    facts = {"0.png": image, "0.json": json.dumps({"label": 2, "kind": 1}).encode()}
    assert labels_of(write_tar(tmp_path / "json/0.tar", facts)) == [2]
    assert labels_of(tmp_path / "json", label_column="kind") == [1]
    assert "no label 'foo'; choices of label_column: json, label, kind" in refusal(tmp_path / "json", label_column="foo")
    assert labels_of(write_tar(tmp_path / "text/0.tar", {"0.png": image, "0.cls": b"bee\n"}), classes=ANIMALS) == [1]
    folders = {f"val/{name}/x.png": image for name in reversed(NUMBERED)}
    assert labels_of(write_tar(tmp_path / "folders/0.tar", folders)) == [2, 1, 0]
    assert labels_of(write_tar(tmp_path / "none/0.tar", {"0.png": image, "1.png": image})) == [-1, -1]
    assert labels_of(tmp_path / "text", label_column="none") == [-1]


def test_several_images_in_a_row_of_a_tar(tmp_path):
    image = png(picture(0))
    folder = write_tar(tmp_path / "0.tar", {"0.png": image, "0.jpg": image, "0.cls": b"1"})
    assert "several images in a row, png, jpg, cls; name one with image_column" in refusal(folder)
    assert labels_of(folder, image_column="jpg") == [1]
    assert "no images in 0.tar" in refusal(write_tar(tmp_path / "b/0.tar", {"x.txt": b""}), error=InputError)


def test_images_whose_names_have_more_dots_are_not_left_out(tmp_path):
    image = png(picture(0))
    folders = {f"{name}/x.{row}.png": image for name in NUMBERED for row in range(2)}
    assert labels_of(write_tar(tmp_path / "a/0.tar", folders | {"README.txt": b""})) == [0, 0, 1, 1, 2, 2]
    rows = {"0.png": image, "0.cls": b"1", "1.v2.png": image, "1.v2.cls": b"2"}
    folder = write_tar(tmp_path / "b/0.tar", rows)
    assert "1.v2.png in 0.tar is no column png, jpg, ... but 'v2.png'" in refusal(folder)
    views = {"0.left.png": image, "0.right.png": image, "0.cls": b"2"}
    assert "0.left.png in 0.tar" in refusal(folder := write_tar(tmp_path / "c/0.tar", views))
    assert labels_of(folder, image_column="right.png") == [2]


def test_shards_that_are_cut_off_or_compressed(tmp_path):
    """`tarfile` ends without an error where a header is damaged or cut, and finds rows of a compressed shard by other offsets."""
    path = tmp_path / "0.tar"
    write_tar(path, {f"{row}.{kind}": b"1" for row in range(3) for kind in ("png", "cls")})
    whole = path.read_bytes()
    for content in (whole[:2048], whole[:2100], whole[:2048] + b"x" * 512 + whole[2560:]):
        path.write_bytes(content)
        assert "0.tar: damaged or cut off after 2048 bytes" in refusal(tmp_path, error=InputError)
    path.write_bytes(gzip.compress(whole))
    assert "0.tar: it is compressed; unpack it" in refusal(tmp_path, error=InputError)


@pytest.mark.parametrize("label", [{"0.cls": b"\xff"}, {"0.json": b"{"}])
def test_labels_of_tar_shards_that_cannot_be_read(tmp_path, label):
    folder = write_tar(tmp_path / "0.tar", {"0.png": png(picture(0)), **label})
    assert "row 0 of 0.tar has a label that cannot be read" in refusal(folder, error=InputError)


def test_labels_in_the_json_of_tar_shards_have_the_usual_names(tmp_path):
    facts = {"0.png": png(picture(0)), "0.json": json.dumps({"coarse_label": 0, "fine_label": 2}).encode()}
    assert labels_of(write_tar(tmp_path / "0.tar", facts)) == [2]


# Lists


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("file,label\nimages/0.png,2\nimages/1.png,0\n", [2, 0]),
        ("label\tpath\n2\timages/0.png\n\n0\timages/1.png\n", [2, 0]),
        ("images/0.png,2\nimages/1.png,0\n", [2, 0]),  # no header
        ("image;label\nimages/0.png;2\n", [2]),
        ("file_name,kind\nimages/0.png,cat\nimages/1.png,ant\n", [2, 0]),
        ("id,image,label,author\n7,images/0.png,1,me\n", [1]),
        ("image,label,split\nimages/0.png,1,train\nimages/1.png,2,val\n", [2]),
        ("\ufefffile\nimages/0.png\n", [-1]),
    ],
)
def test_lists(tmp_path, text, labels):
    (tmp_path / "images").mkdir()
    for number in range(2):
        picture(number).save(tmp_path / f"images/{number}.png")
    (tmp_path / "list.csv").write_text(text, encoding="utf-8")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for dataset in (tmp_path, tmp_path / "list.csv"):
        assert labels_of(dataset, classes=ANIMALS) == labels


def test_lists_of_splits(tmp_path):
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "train.csv").write_text("image,label\n0.png,1\n")
    for dataset in (tmp_path, tmp_path / "train.csv"):
        assert labels_of(dataset, "train") == [1]
        assert "has no split 'validation'; choices: train" in refusal(dataset)
    (tmp_path / "val.csv").write_text("image,label\n0.png,2\n")
    assert labels_of(tmp_path) == [2] and labels_of(tmp_path, "train") == [1]
    (tmp_path / "dev.csv").write_text("image,label\n0.png,0\n")
    assert "several splits for 'validation'; choices of split: dev, val" in refusal(tmp_path)
    assert labels_of(tmp_path, "dev") == [0]
    for split, label in (("train", 1), ("test", 2)):  # as `datasets` names them
        (tmp_path / "f" / split).mkdir(parents=True)
        picture(0).save(tmp_path / "f" / split / "0.png")
        (tmp_path / "f" / split / "metadata.csv").write_text(f"file_name,label\n0.png,{label}\n")
    assert labels_of(tmp_path / "f", "test") == [2] and labels_of(tmp_path / "f", "train") == [1]


@pytest.mark.parametrize(
    ("text", "message", "options"),
    [
        ("file,label\nnowhere/0.png,2\n", "no column of image files that exist beside it; columns: file, label", {}),
        ("image,a,b\n0.png,1,2\n", "which column holds the labels? choices of label_column: a, b, none", {}),
        ("image,a\n0.png,1\n", "no column 'foo'; choices of label_column: a", {"label_column": "foo"}),
        ("image,label,split\n0.png,1,train\n", "has no split 'validation'; choices: train", {}),
        ("image,label\n0.png,1\n0.png,\n", "row 1 has no label", {}),
        ("image,label\n0.png,3\n", "row 0 has label 3, the model has classes 0 to 2", {}),
        ("image,label\n", "no column of image files", {}),
        ("image,label\n0.png,--1\n", "row 0 has label '--1'", {}),
        ("", "the list is empty", {}),
    ],
)
def test_lists_that_cannot_be_read(tmp_path, text, message, options):
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text(text)
    assert message in refusal(tmp_path / "list.csv", error=ValueError, **options)


@pytest.mark.parametrize("images", ["images/0.png", "0.png"])
def test_a_folder_whose_list_names_other_paths(tmp_path, images):
    (tmp_path / images).parent.mkdir(exist_ok=True)
    picture(0).save(tmp_path / images)
    (tmp_path / "val.csv").write_text("image,label\npictures/0.png,1\n")
    assert "val.csv names pictures/0.png, which does not exist; paths are relative" in refusal(tmp_path, error=InputError)
    assert "val.csv has no column 'Image'; choices of image_column: image, label" in refusal(tmp_path, image_column="Image")
    write_classes(tmp_path, NUMBERED)
    (tmp_path / images).unlink()
    assert labels_of(tmp_path, classes=Classes(3, tuple(NUMBERED))) == [0, 1, 2]  # classes need no table


def test_a_file_that_a_list_names_and_that_is_missing(tmp_path):
    picture(0).save(tmp_path / "0.png")
    (tmp_path / "list.csv").write_text("image,label\n0.png,1\n1.png,1\n")
    with pytest.raises(InputError, match=r"1\.png\) is not a readable image"):
        list(batches(load_labeled(str(tmp_path), "validation", 3), lambda image: torch.zeros(1), batch_size=1))
