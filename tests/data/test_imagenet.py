"""ImageNet-val in every published layout gives the same tensors and labels in the same order, equal to timm's reader."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from dataset_server import serving
from PIL import Image as PILImage
from timm.data import ImageNetInfo
from timm.data.readers.reader_image_folder import ReaderImageFolder
from tiny_imagenet import LABELS, NUM_ROWS, WNIDS, file_name, photograph, write_folders, write_parquet, write_tars

from vitdfq.common.errors import AccessError, InputError, RecipeError
from vitdfq.data import batches, load_labeled, transform_of

HERE = Path(__file__).parent
PARQUET, WDS, OTHER = "ILSVRC/imagenet-1k", "timm/imagenet-1k-wds", "someone/other"
GATED, FORBIDDEN = "someone/gated", "someone/forbidden"


class Model:
    """The attributes of a model that `vitdfq.data` reads; at its test size images are larger, and cropped less."""

    num_classes = len(WNIDS)
    pretrained_cfg: ClassVar = {
        "input_size": (3, 24, 24),
        "test_input_size": (3, 32, 32),
        "crop_pct": 0.8,
        "test_crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.5, 0.2, 0.1),
    }


def read(dataset: str, **options) -> tuple[torch.Tensor, list[int]]:
    labeled = load_labeled(dataset, "validation", Model.num_classes, **options)
    found = list(batches(labeled, transform_of(Model()), batch_size=4, num_workers=2))
    return torch.cat([images for images, _ in found]), torch.cat([labels for _, labels in found]).tolist()


READ = """
import json, sys, torch
from test_imagenet import read
for out, dataset, streaming in json.loads(sys.argv[1]):
    try:
        images, labels = read(dataset, streaming=streaming)
        torch.save((images, labels), out)
    except Exception as error:
        print(json.dumps([type(error).__name__, str(error)]))
"""


def read_elsewhere(endpoint: str, home: Path, *requests: tuple[str, bool]):
    """Read sets from the Hub at `endpoint` in another process; return tensors and labels, or an error's type and text."""
    outs = [str(home / f"{number}.pt") for number in range(len(requests))]
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (HERE, HERE.parent / "helpers", HERE.parents[1])))
    environment |= {"HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0", "NO_PROXY": "127.0.0.1"}
    cases = json.dumps([[out, *case] for out, case in zip(outs, requests, strict=True)])
    done = subprocess.run([sys.executable, "-c", READ, cases], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    errors = iter(done.stdout.splitlines())
    return [torch.load(out) if Path(out).exists() else json.loads(next(errors)) for out in outs]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("layouts")
    return {
        "folders": write_folders(root / "folders"),
        "parquet": write_parquet(root / "parquet"),
        "tars": write_tars(root / "tars"),
    }


@pytest.fixture(scope="module")
def hub(layouts):
    """A Hub with both of ImageNet's repositories, a third, one that is gated, and one that this token may not read."""
    repos = {
        PARQUET: layouts["parquet"],
        WDS: layouts["tars"],
        OTHER: layouts["parquet"],
        GATED: layouts["parquet"],
        FORBIDDEN: layouts["tars"],
    }
    with serving(repos, gated={GATED: 401, FORBIDDEN: 403}) as server:
        yield server


@pytest.fixture(scope="module")
def expected(layouts) -> torch.Tensor:
    """timm's own reader on the class folders, in the order of the rows."""
    reader = ReaderImageFolder(str(layouts["folders"] / "val"))
    place = {Path(path).name: index for index, path in enumerate(reader.filenames(absolute=True))}
    images = []
    for row, expected_label in enumerate(LABELS):
        file, label = reader[place[file_name(row)]]
        with file:
            images.append(transform_of(Model())(PILImage.open(file).convert("RGB")))  # as timm.data.ImageDataset does
        assert label == expected_label
    return torch.stack(images)


def test_local_layouts_are_timms(layouts, expected):
    for name, folder in layouts.items():
        images, labels = read(str(folder))
        assert labels == LABELS, name
        assert images.equal(expected), name
        assert images.shape == (NUM_ROWS, 3, 32, 32)  # the test size
        assert load_labeled(str(folder), "validation", 4).num_rows == NUM_ROWS, name


@pytest.fixture(scope="module")
def online(hub, tmp_path_factory) -> tuple[Path, dict]:
    """The home of a process that read all of these, and its results: one process, since imports take most of the time."""
    home = tmp_path_factory.mktemp("home")
    requests = [(name, streaming) for name in (PARQUET, WDS) for streaming in (True, False)] + [(OTHER, False)]
    requests += [(GATED, True), (GATED, False), (FORBIDDEN, True), ("someone/absent", True), ("someone/absent", False)]
    return home, dict(zip(requests, read_elsewhere(hub.endpoint, home, *requests), strict=True))


@pytest.mark.integration
def test_hub_layouts_are_timms_streamed_and_fetched(hub, online, expected):
    for name, streaming in ((PARQUET, True), (PARQUET, False), (WDS, True), (WDS, False), (OTHER, False)):
        images, labels = online[1][name, streaming]
        assert labels == LABELS and images.equal(expected), (name, streaming)
    assert hub.sent("validation") and not hub.sent("train")  # 150 GB are not downloaded for the sake of 6


@pytest.mark.integration
def test_hub_refusals_are_one_line_with_a_way_out(hub, online):
    for (name, streaming), (error, text) in list(online[1].items())[-5:]:
        assert error == "AccessError" and "\n" not in text and f"{hub.endpoint}/datasets/{name}" in text, streaming
        assert "`hf auth login`" in text and "--set evaluate.dataset=PATH" in text
        assert ("it is gated: accept its terms on" in text) == (name in (GATED, FORBIDDEN)), text
        assert ("not found" in text) == (name == "someone/absent"), text


@pytest.mark.integration
def test_what_was_fetched_is_read_without_a_network(online, expected, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(online[0] / "hub"))  # tests are offline: conftest.py
    images, labels = read(OTHER, streaming=False)
    assert labels == LABELS and images.equal(expected)
    for name, streaming, message in (
        (WDS, False, f"only {NUM_ROWS} of 50000 rows are in the cache"),  # ImageNet has more
        (OTHER, True, "offline, "),
        ("someone/else", False, "is not in the cache; give a folder"),
    ):
        with pytest.raises(AccessError, match=message):
            read(name, streaming=streaming)


def test_rows_hold_the_files_themselves(layouts):
    """`datasets` would rotate one of them, and decodes all when a stream's columns are renamed."""
    odd = [PILImage.open(io.BytesIO(photograph(row))) for row in range(5)]
    assert [(image.format, image.mode) for image in odd[1:3]] == [("JPEG", "L"), ("JPEG", "CMYK")] and odd[4].format == "PNG"
    assert odd[3].getexif()[0x0112] == 6 and odd[3].size == (53, 40)
    for name in ("parquet", "tars"):
        row = list(load_labeled(str(layouts[name]), "validation", 4))[3]
        assert row["image"]["bytes"] == photograph(3), name  # the file itself, not one decoded and encoded again


def refused(error, dataset, split="validation", num_classes=4) -> str:
    with pytest.raises(error) as caught:
        list(batches(load_labeled(str(dataset), split, num_classes), transform_of(Model()), batch_size=4))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("layout", ["folders", "parquet", "tars"])
def test_an_unknown_split_is_answered_with_the_choices(layouts, layout):
    choices = {"folders": "val", "parquet": "train, validation", "tars": "train, validation"}[layout]
    assert f"has no split 'test'; choices: {choices}" in refused(RecipeError, layouts[layout], split="test")


def test_a_wrong_number_of_classes(layouts):
    for name in ("folders", "parquet"):
        assert "has 4 classes, the model has 10" in refused(RecipeError, layouts[name], num_classes=10)
    # shards have no list of classes: only a label out of range is noticed
    assert "row 2 has label 2, the model has classes 0 to 1" in refused(RecipeError, layouts["tars"], num_classes=2)


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_some_of_imagenets_classes_are_numbered_as_in_imagenet(layouts, layout):
    """As timm's class map does for ImageNet-A: WordNet ids are known without the model's names."""
    numbers = {WNIDS.index(wnid): ImageNetInfo().label_names().index(wnid) for wnid in WNIDS}
    labeled = load_labeled(str(layouts[layout]), "validation", 1000)
    assert [row["label"] for row in labeled] == [numbers[label] for label in LABELS]


def truncated(row: int) -> bytes:
    return photograph(0)[:-300] if row == 9 else photograph(row)


@pytest.mark.parametrize(
    ("write", "place"),
    [(write_folders, file_name(9)), (write_parquet, f"row 9 ({file_name(9)})"), (write_tars, "row 9 (n01443537_00000009.jpg)")],
)
def test_a_truncated_image_is_named(write, place, tmp_path, monkeypatch):
    monkeypatch.setattr("tiny_imagenet.photograph", truncated)
    text = refused(InputError, write(tmp_path / "set"))
    assert place in text and "is not a readable image (image file is truncated" in text


def test_a_split_without_labels(tmp_path, monkeypatch):
    """ImageNet's test split: every label is -1."""
    monkeypatch.setattr("tiny_imagenet.LABELS", [-1] * NUM_ROWS)
    for write in (write_parquet, write_tars):
        assert "row 0 has label -1" in refused(RecipeError, write(tmp_path / write.__name__))


def test_damaged_and_empty_shards(tmp_path):
    shard = write_tars(tmp_path / "set") / "imagenet1k-validation-01.tar"
    shard.write_bytes(shard.read_bytes()[:2000])
    assert "not readable as webdataset" in refused(InputError, tmp_path / "set")
    (tmp_path / "empty").mkdir()
    assert "no parquet files, no tar shards and no class folders" in refused(InputError, tmp_path / "empty")
    (tmp_path / "x.zip").write_bytes(b"")
    assert "x.zip is none of .csv, .parquet, .tar, .tsv" in refused(InputError, tmp_path / "x.zip")
