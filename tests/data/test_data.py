"""Labeled images: every layout gives the same rows, every error is one line, decoding is timm's."""

import os
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from pictures import CLASSES, LABELS, picture, png, write_folders, write_parquet
from PIL import Image as PILImage
from timm.data.readers.reader_image_folder import ReaderImageFolder

from vitdfq.common.errors import AccessError, InputError, RecipeError
from vitdfq.data import batches, check_dataset, load_labeled, transform_of, unseen_images

ROWS = 6


def read(dataset, split="validation", num_classes=3, **kwargs):
    """Return labels, and sums of pixels that identify the images."""
    labeled = load_labeled(str(dataset), split, num_classes)
    pairs = list(batches(labeled, pixels, batch_size=4, **kwargs))
    return torch.cat([y for _, y in pairs]).tolist(), [int(x.sum()) for images, _ in pairs for x in images]


def pixels(image: PILImage.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).long()


def layouts(tmp_path):
    write_parquet(tmp_path / "a/data/validation-00000-of-00002.parquet", LABELS[:6])
    write_parquet(tmp_path / "a/data/train-00000-of-00001.parquet", [1])
    write_parquet(tmp_path / "b/some.parquet", LABELS[:6])
    write_parquet(tmp_path / "c/val/x.parquet", LABELS[:6])
    write_folders(tmp_path / "d")
    write_folders(tmp_path / "e/val")
    write_folders(tmp_path / "e/train", per_class=1)
    return [tmp_path / "a", tmp_path / "b", tmp_path / "b/some.parquet", tmp_path / "c", tmp_path / "d", tmp_path / "e"]


def test_every_layout_gives_the_same_rows(tmp_path):
    expected = (LABELS[:ROWS], [int(np.array(picture(i)).sum(dtype=np.int64)) for i in range(ROWS)])
    for dataset in layouts(tmp_path):
        assert read(dataset) == expected, dataset
        assert load_labeled(str(dataset), "validation", 3).num_rows == ROWS


@pytest.mark.parametrize("num_workers", [0, 3])
def test_order_and_number_do_not_depend_on_workers(tmp_path, num_workers):
    write_parquet(tmp_path / "x.parquet", LABELS * 10)
    labels, sums = read(tmp_path, num_images=33, num_workers=num_workers)
    assert labels == (LABELS * 10)[:33]
    assert sums == [int(np.array(picture(i)).sum(dtype=np.int64)) for i in range(33)]


def test_first_images_of_class_folders_are_of_all_classes(tmp_path):
    write_folders(tmp_path, per_class=4)
    assert read(tmp_path, num_images=6)[0] == [0, 1, 2, 0, 1, 2]


def test_class_order_is_timms(tmp_path):
    write_folders(tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("not an image")
    names = load_labeled(str(tmp_path), "validation", 3).source.rows.features["label"].names
    assert {name: index for index, name in enumerate(names)} == ReaderImageFolder(str(tmp_path)).class_to_idx


@pytest.mark.integration
def test_zoo_set_is_all_of_fashion_mnist_under_both_names():
    for split in ("test", "validation"):
        labeled = load_labeled("zoo:fashion-mnist", split, 10)
        assert labeled.num_rows == 10_000
    labels = [row["label"] for row in labeled]
    assert len(labels) == 10_000 and all(labels.count(label) == 1000 for label in range(10))
    assert "Ankle boot" in labeled.source.rows.features["label"].names
    with pytest.raises(RecipeError, match="no split 'train'; choices: test"):
        load_labeled("zoo:fashion-mnist", "train", 10)


@pytest.mark.integration
def test_zoo_set_needs_no_home_and_no_network(tmp_path):
    code = (
        "from vitdfq.data import load_labeled\n"
        "assert next(iter(load_labeled('zoo:fashion-mnist', 'test', 10)))['image']['bytes'][:4] == b'\\x89PNG'"
    )
    environment = os.environ | {"HOME": "/proc/no_such_home", "HF_HUB_OFFLINE": "1", "TMPDIR": str(tmp_path)}
    for name in [name for name in environment if name.startswith(("HF_HOME", "HF_DATASETS_CACHE", "XDG_"))]:
        del environment[name]
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_exif_does_not_rotate_images(tmp_path):
    """`datasets` alone would rotate them: timm opens with PIL and converts, nothing else."""
    exif = PILImage.Exif()
    exif[0x0112] = 6  # a quarter turn
    (tmp_path / "ant").mkdir()
    picture(0).save(tmp_path / "ant" / "turned.jpg", exif=exif, quality=95)
    row = next(iter(load_labeled(str(tmp_path), "test", 1)))
    assert Image().decode_example(row["image"]).size == (8, 6)  # rotated
    (images, _), *_ = batches(load_labeled(str(tmp_path), "test", 1), pixels, batch_size=1)
    assert images.shape == (1, 3, 8, 6)


def test_grey_and_transparent_images_become_rgb(tmp_path):
    for name, mode in (("a", "L"), ("b", "RGBA"), ("c", "1")):
        (tmp_path / "ant").mkdir(exist_ok=True)
        picture(0).convert(mode).save(tmp_path / "ant" / f"{name}.png")
    (images, _), *_ = batches(load_labeled(str(tmp_path), "test", 1), pixels, batch_size=8)
    assert images.shape == (3, 3, 8, 6)


@pytest.mark.parametrize(("dtype", "suffix"), [(np.uint16, "png"), (np.float32, "tiff")])
def test_gray_values_that_do_not_fit_8_bits_are_refused(tmp_path, dtype, suffix):
    (tmp_path / "ant").mkdir()
    PILImage.fromarray(np.full((4, 4), 1000, dtype)).save(tmp_path / f"ant/x.{suffix}")
    with pytest.raises(InputError, match=r"x.* values 1000 to 1000; convert it to 8 bits"):
        list(batches(load_labeled(str(tmp_path), "test", 1), pixels, batch_size=1))


def test_a_file_that_is_no_image_is_named_without_an_address(tmp_path):
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant/x.png").write_text("text")
    with pytest.raises(InputError, match=r"x\.png\) is not a readable image \(none of the formats that PIL reads\)"):
        list(batches(load_labeled(str(tmp_path), "test", 1), pixels, batch_size=1))


def test_webdataset_names_are_understood(tmp_path):
    write_parquet(tmp_path / "x.parquet", label=Value("int64"), names=("jpg", "cls"))
    assert read(tmp_path)[0] == LABELS


def test_transform_is_timms(tiny_vit):
    assert [type(step).__name__ for step in transform_of(tiny_vit).transforms] == [
        "Resize",
        "CenterCrop",
        "MaybeToTensor",
        "Normalize",
    ]
    assert transform_of(tiny_vit)(picture(0)).shape == (3, 32, 32)


def refused(error, message, dataset, split="validation", num_classes=3):
    with pytest.raises(error) as caught:
        read(dataset, split, num_classes)
    text = str(caught.value)
    assert message in text and "\n" not in text, text


def test_wrong_columns(tmp_path):
    write_parquet(tmp_path / "x.parquet", names=("picture", "kind"), label=Value("int64"))
    refused(RecipeError, "columns image and label are needed; found: picture, kind", tmp_path)


def test_wrong_class_count(tmp_path):
    write_parquet(tmp_path / "x.parquet")
    refused(RecipeError, "has 3 classes, the model has 1000", tmp_path, num_classes=1000)
    write_folders(tmp_path / "folders")
    refused(RecipeError, "has 3 classes, the model has 10", tmp_path / "folders", num_classes=10)


def test_wrong_types_of_columns(tmp_path):
    write_parquet(tmp_path / "a/x.parquet", labels=[0.5] * 3, label=Value("float32"))
    refused(RecipeError, "column label must hold whole numbers or names of classes", tmp_path / "a")
    columns = {"image": ["a.png"], "label": [0]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "text.parquet")
    refused(RecipeError, "column image must hold images", tmp_path / "text.parquet")


def test_labels_out_of_range(tmp_path):
    write_parquet(tmp_path / "x.parquet", labels=[0, 1, -1, 2], label=Value("int64"))
    refused(RecipeError, "row 2 has label -1, the model has classes 0 to 2; is this split labeled?", tmp_path)


def test_missing_paths_and_splits(tmp_path):
    refused(InputError, "no such file or folder", tmp_path / "absent")
    refused(InputError, "no parquet files, no tar shards and no class folders with images", tmp_path)
    write_parquet(tmp_path / "train-0.parquet")
    refused(RecipeError, "has no split 'validation'; choices: train", tmp_path)


def test_damaged_files(tmp_path):
    write_parquet(tmp_path / "x.parquet")
    whole = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(whole[: len(whole) // 2])
    refused(InputError, "not readable as parquet", tmp_path)
    (tmp_path / "d/ant").mkdir(parents=True)
    (tmp_path / "d/ant/x.png").write_bytes(png(picture(0))[:60])
    refused(InputError, "ant/x.png) is not a readable image", tmp_path / "d", num_classes=1)


def test_a_page_in_the_middle_of_a_file_is_damaged(tmp_path):
    write_parquet(tmp_path / "x.parquet", labels=LABELS * 30)
    damaged = bytearray((tmp_path / "x.parquet").read_bytes())
    damaged[40 : len(damaged) // 2] = bytes(len(damaged) // 2 - 40)
    (tmp_path / "x.parquet").write_bytes(damaged)
    refused(InputError, "dataset", tmp_path)


@pytest.mark.parametrize("dataset", ["zoo:fashion-mnst", "imagenet1k", "mnist"])
def test_unknown_names_are_refused_without_disk_or_network(dataset):
    with pytest.raises(RecipeError, match=r"unknown dataset .*choices: "):
        check_dataset(dataset)


def test_offline_is_one_line_with_a_way_out():
    refused(AccessError, "offline, https://huggingface.co/datasets/ILSVRC/imagenet-1k could not", "imagenet-1k")
    refused(AccessError, "--set evaluate.dataset=PATH", "timm/imagenet-1k-wds")


def test_hub_errors(monkeypatch):
    """Types and texts are recorded from datasets 5.2; no request is sent."""
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vitdfq.common.hub_connection.reachable", lambda *repository: True)
    gated = DatasetNotFoundError("Dataset 'ILSVRC/imagenet-1k' is a gated dataset on the Hub.\nVisit its page.")
    for raised, error, message in (
        (gated, AccessError, "`hf auth login`"),
        (ValueError("Unknown split 'validation'.\nShould be one of ['train']."), RecipeError, "one of ['train']"),
        (ConnectionError("Couldn't reach it"), AccessError, "could not be read (Couldn't reach it)"),
    ):

        def load_dataset(name, raised=raised, **kwargs):
            assert name == "ILSVRC/imagenet-1k" and kwargs == {"split": "validation", "streaming": True}
            raise raised

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        refused(error, message, "imagenet-1k")


def test_lost_connection_in_the_middle_is_an_access_error(monkeypatch):
    import datasets

    def rows():
        yield {"image": {"bytes": png(picture(0)), "path": None}, "label": 0}
        raise OSError("connection reset")

    features = Features({"image": Image(), "label": ClassLabel(names=CLASSES)})
    stream = datasets.IterableDataset.from_generator(rows, features=features)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vitdfq.common.hub_connection.reachable", lambda *repository: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: stream)
    refused(AccessError, "row 1 cannot be read (connection reset)", "someone/something")


class Model:
    """The attributes of a model that `unseen_images` reads: classes and a transform."""

    num_classes = 3
    pretrained_cfg: ClassVar = {"input_size": (3, 8, 8), "mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}


def unseen_numbers(dataset, **options):
    """Return the numbers of the pictures that `unseen_images` returns, recognized by their pixels."""
    transform = transform_of(Model())
    known = {tuple(transform(picture(number)).flatten().tolist()): number for number in range(20)}
    return [known[tuple(image.flatten().tolist())] for image in unseen_images(Model(), dataset=str(dataset), **options)]


def test_unseen_images_are_the_last_or_of_the_train_split(tmp_path):
    write_parquet(tmp_path / "a/test.parquet")
    options = {"split": "test", "evaluated": 2, "count": 2}
    assert unseen_numbers(tmp_path / "a", **options) == [5, 6]
    assert unseen_numbers(tmp_path / "a", **options, block=1) == [3, 4]
    assert unseen_numbers(tmp_path / "a", **options | {"count": 5}) == [2, 3, 4, 5, 6]
    for wrong in ({"block": 2}, {"count": 6}, {"evaluated": None}, {"evaluated": 6}):
        with pytest.raises(RecipeError, match=r"not evaluated; lower evaluate\.num_images"):
            unseen_numbers(tmp_path / "a", **options | wrong)
    write_parquet(tmp_path / "a/train.parquet")
    for evaluated in (2, None):
        assert unseen_numbers(tmp_path / "a", **options | {"evaluated": evaluated}, block=2) == [4, 5]
    with pytest.raises(RecipeError, match="for each of 4 seeds"):
        unseen_numbers(tmp_path / "a", **options, block=3)
    write_folders(tmp_path / "b/val")
    assert unseen_numbers(tmp_path / "b", split="val", evaluated=4, count=2) == [4, 5]
    (tmp_path / "b/train").mkdir()  # images without labels serve as well
    picture(9).save(tmp_path / "b/train/9.png")
    assert unseen_numbers(tmp_path / "b", split="val", evaluated=None, count=1) == [9]


def test_a_class_called_train_is_no_train_split(tmp_path):
    """Its images are evaluated with the others."""
    for number, name in enumerate(("car", "plane", "train")):
        (tmp_path / name).mkdir()
        picture(number).save(tmp_path / name / "x.png")
    with pytest.raises(RecipeError, match="not evaluated"):
        unseen_numbers(tmp_path, split="validation", evaluated=None, count=1)
    assert unseen_numbers(tmp_path, split="validation", evaluated=2, count=1) == [2]


def test_one_file_without_a_split_has_no_train_split(tmp_path):
    """Its rows serve as any split: they must not pass for a train split while they are evaluated."""
    write_parquet(tmp_path / "a/rows.parquet")
    for dataset in (tmp_path / "a", tmp_path / "a/rows.parquet"):
        with pytest.raises(RecipeError, match="not evaluated"):
            unseen_numbers(dataset, split="validation", evaluated=None, count=2)
        assert unseen_numbers(dataset, split="validation", evaluated=5, count=2) == [5, 6]
