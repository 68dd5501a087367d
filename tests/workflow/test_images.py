"""The images of a run: written as files, and read back as images of one's own."""

import json
import logging
import re

import pytest
from html_page import parsed

from vitdfq.common.errors import InputError
from vitdfq.common.safetensors_io import read_tensors
from vitdfq.cost.dry_run import plan
from vitdfq.recipe import load_recipe
from vitdfq.workflow.compare import compare
from vitdfq.workflow.images import write_images
from vitdfq.workflow.run import run


@pytest.fixture
def recipe(folder) -> dict:
    return {
        "name": "tiny",
        "model": {"name": f"local-dir:{folder}"},
        "synthesize": {"method": "psaq", "num_images": 3, "steps": 1},
        "calibrate": {"steps": ["observe"]},
        "min_agreement": 0,
    }


def test_files_of_a_run(recipe, tmp_path):
    run(recipe, out=tmp_path / "run", until="images")
    page = parsed((tmp_path / "run/reports/index.html").read_text())
    assert page.problems == [] and {"Summary", "Images"} <= set(page.headings) and len(page.images) == 3
    written = write_images(tmp_path / "run", tmp_path / "pictures")
    assert written["files"] == sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert all(re.fullmatch(r"000[012]_[0-4]-[a-e]\.png", name) for name in written["files"])
    with pytest.raises(InputError, match="not empty; choose another --out"):
        write_images(tmp_path / "run", tmp_path / "pictures")
    with pytest.raises(InputError, match="not a run with images"):
        write_images(tmp_path, tmp_path / "others")


def test_own_images_in_place_of_synthetic_ones(recipe, tmp_path, caplog):
    run(recipe, out=tmp_path / "run", until="images")
    write_images(tmp_path / "run", tmp_path / "pictures")
    own = recipe | {"synthesize": {"images": str(tmp_path / "pictures"), "num_images": 3}}
    metrics = run(own, out=tmp_path / "own", until="student")
    assert metrics["synthesis"]["method"] == "own" and metrics["synthesis"]["presets"] == []
    assert read_tensors(tmp_path / "own/images.safetensors")["images"].shape == (3, 3, 32, 32)
    card = (tmp_path / "own/README.md").read_text()
    assert "3 images that were given to it" in card and "without\none real image" not in card and "data-free" not in card
    with caplog.at_level(logging.INFO):
        run(own, out=tmp_path / "own", until="student")
    assert "model.safetensors: used again" in caplog.text
    next((tmp_path / "pictures").iterdir()).unlink()
    with pytest.raises(InputError, match="holds 2 images"):
        run(own, out=tmp_path / "own", until="student")


def test_a_path_that_is_not_there_costs_no_stage(recipe, tmp_path):
    absent = load_recipe(recipe | {"synthesize": {"images": str(tmp_path / "absent")}})
    for refuse in (lambda: run(absent, out=tmp_path / "out"), lambda: plan(absent)):
        with pytest.raises(InputError, match="absent: no such file or folder"):
            refuse()
    assert not (tmp_path / "out").exists()


def test_own_images_are_a_row_of_a_comparison(recipe, tmp_path):
    run(recipe, out=tmp_path / "run", until="images")
    images = {"images": str(tmp_path / "run/images.safetensors"), "num_images": 3}
    own = recipe | {"synthesize": images, "compare": {"methods": ["noise"]}}
    own["evaluate"] = {"dataset": str(pictures_of(tmp_path)), "label_column": "none"}
    content = compare([own], out=tmp_path / "compared")
    assert {row["title"] for row in content["rows"]} == {"own", "noise"} and not content["failed"]
    assert json.loads((tmp_path / "compared/compare.json").read_text())["rows"]


def pictures_of(tmp_path):
    write_images(tmp_path / "run", tmp_path / "pictures")
    return tmp_path / "pictures"
