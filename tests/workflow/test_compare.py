"""`vitdfq compare` as a command, on a zoo model with few images and few steps."""

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from html_page import parsed
from PIL import Image

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.safetensors_io import read_tensors
from vitdfq.recipe.comparison import Row
from vitdfq.reports.tables import COLUMNS
from vitdfq.workflow.compare import REAL, compare, slug_of

RECIPE = {
    "name": "small",
    "model": {"name": "zoo:vit"},
    "synthesize": {"method": "sardfq", "num_images": 8, "steps": 3},
    "calibrate": {"steps": ["observe"]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 64},
    "compare": {"methods": ["sardfq", "noise"], "seeds": [1, 0], "real_images": 4},
}
TITLES = ["sardfq", "noise", REAL.title]


def command(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "vitdfq", "compare", *map(str, arguments)], capture_output=True, text=True)


def width(path: Path) -> int:
    with Image.open(path) as image:
        return image.width


def write(path: Path, **changes) -> Path:
    path.write_text(yaml.safe_dump(RECIPE | {"name": path.stem} | changes, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder that holds small.yaml and, in `out`, its comparison."""
    folder = tmp_path_factory.mktemp("compare")
    done = command(write(folder / "small.yaml"), "--out", folder / "out", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "out/compare.json").read_text())
    assert done.stderr.count("evaluate: teacher\n") == 1
    return folder


@pytest.fixture(scope="module")
def content(finished) -> dict:
    return json.loads((finished / "out/compare.json").read_text())


def test_compare_json_has_the_documented_keys(content):
    about = {"recipes", "vitdfq", "device", "bits", "dynamic", "mixed", "seeds"}
    assert set(content) == about | {"teacher", "rows", "cells", "failed"}
    assert content["seeds"] == [1, 0] and content["bits"] == "w4a4" and not content["dynamic"] and content["failed"] == []
    assert content["recipes"]["small"]["compare"] == RECIPE["compare"]
    assert content["teacher"]["name"] == "zoo:vit" and content["teacher"]["num_images"] == 64
    assert sorted(row["title"] for row in content["rows"]) == sorted(TITLES)
    assert [row["uses_data"] for row in content["rows"]] == [False, False, True]
    assert content["rows"][0]["mean"]["kl"] <= content["rows"][1]["mean"]["kl"]
    assert [(cell["row"], cell["seed"]) for cell in content["cells"]] == [(title, seed) for title in TITLES for seed in (1, 0)]
    for cell in content["cells"]:
        assert set(COLUMNS) | {"row", "seed", "top5", "num_classes_seen"} == set(cell)
        assert 0 <= cell["agreement"] <= 100 and 0.1 <= cell["class_confidence"] <= 1 and cell["layer_norm_distance"] > 0
        assert (cell["synthesis_seconds"] is None) == (cell["row"] == REAL.title) and cell["calibration_seconds"] > 0
    assert [row["mean"]["num_images"] for row in content["rows"]] == [8, 8, 4]
    for row, key in itertools.product(content["rows"], ("kl", "agreement", "top1")):
        values = [cell[key] for cell in content["cells"] if cell["row"] == row["title"]]
        assert row["n"] == 2 and row["mean"][key] == pytest.approx(sum(values) / 2)
        assert row["sd"][key] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)


def test_rows_are_sorted_by_kl_in_whichever_order_they_are_named(tmp_path):
    write(tmp_path / "small.yaml", compare={"real_images": 4})
    for methods in ("[noise, dead_leaves]", "[dead_leaves, noise]"):
        content = compare([tmp_path / "small.yaml"], out=tmp_path / "out", overrides=[f"compare.methods={methods}"])
        kl = [row["mean"]["kl"] for row in content["rows"]]
        assert kl[0] < kl[1] and content["rows"][2]["title"] == REAL.title
        page = (tmp_path / "out/compare.md").read_text()
        places = [page.index(f"| {row['title']} |") for row in content["rows"]]
        assert places == sorted(places)


def test_images_differ_between_seeds(finished):
    images = {path.name: read_tensors(path)["images"] for path in (finished / "out/stages").glob("*_images.safetensors")}
    assert sorted(images) == [f"{row}_{seed}_images.safetensors" for row in ("noise", "real", "sardfq") for seed in (0, 1)]
    for row in ("noise", "real", "sardfq"):
        assert (images[f"{row}_0_images.safetensors"] != images[f"{row}_1_images.safetensors"]).any()


def test_grids_attention_and_charts_are_drawn(finished):
    page = (finished / "out/compare.md").read_text()
    for name in ("sardfq", "noise", "real"):
        for path in (f"grids/{name}.png", f"attention/{name}.png"):
            assert f"({path})" in page and width(finished / "out" / path) > 200
    with_priors, without = (width(finished / f"out/attention/{name}.png") for name in ("sardfq", "noise"))
    assert with_priors > without
    assert width(finished / "out/compare.png") > 600
    report = parsed((finished / "out/reports/index.html").read_text())
    assert report.problems == [] and len(report.images) == 1 + 2 * len(TITLES)
    assert f"| {REAL.title} | 2 |" in page and "uses data" in page.split("|")[-1]


def test_a_second_run_computes_nothing(finished):
    out = finished / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in (".png", ".safetensors")}
    text = (out / "compare.json").read_bytes()
    done = command(finished / "small.yaml", "--out", out)
    assert done.returncode == 0 and "evaluate:" not in done.stderr and "synthesize" not in done.stderr
    assert (out / "compare.json").read_bytes() == text
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert all(title in done.stdout for title in ("sardfq", "noise", "uses data", "agreement %"))


def test_a_new_method_is_added_and_finished_cells_are_used_again(finished, content, tmp_path):
    """Runs in this process. Finished cells come from the folder, in the new order."""
    out = shutil.copytree(finished / "out", tmp_path / "out")
    noise = (out / "stages/noise_1_predictions.safetensors").stat().st_mtime_ns
    changes = ["compare.methods=[dead_leaves, noise]", "compare.seeds=[1]"]
    changed = compare([finished / "small.yaml"], out=out, overrides=changes)
    assert {row["title"] for row in changed["rows"]} == {"dead_leaves", "noise", REAL.title}
    assert (out / "stages/noise_1_predictions.safetensors").stat().st_mtime_ns == noise
    cells = {(cell["row"], cell["seed"]): cell for cell in content["cells"]}
    assert changed["cells"][1] == cells["noise", 1] and changed["rows"][1]["sd"]["top1"] is None


def test_a_method_that_fails_is_a_row_with_its_error(tmp_path):
    losses = {"class_confidence": {"weight": 1.0e300}}
    write(tmp_path / "broken.yaml", synthesize={"method": "psaq", "num_images": 2, "steps": 2, "losses": losses}, compare={})
    write(tmp_path / "fine.yaml", synthesize={"method": "noise", "num_images": 2}, compare={})
    done = command(tmp_path / "broken.yaml", tmp_path / "fine.yaml", "--out", tmp_path / "out", "--format", "json")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "error: 1 of 2 rows failed: broken"
    content = json.loads(done.stdout)
    fine, broken = content["rows"]
    assert content["failed"] == ["broken"] and "is nan at step 1" in broken["error"] and broken["n"] == 0
    assert broken["pictures"] == [] and broken["mean"]["top1"] is None
    assert fine["error"] is None and fine["mean"]["top1"] > 50
    assert "broken failed: synthesize: loss" in (tmp_path / "out/compare.md").read_text()


def test_no_two_rows_share_a_file():
    rows = [REAL, Row("real", {}), Row("noise (c)", {}), Row("noise_c", {}), Row("noise-c", {})]
    assert len({slug_of(row) for row in rows}) == len(rows)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("compare.methods=[nois]", "unknown synthesis method 'nois', did you mean 'noise'?"),
        ("compare.methods=[real]", "ask for real images with compare.real_images"),
        ("compare.methods=[]", "[] is empty or names something twice"),
        ("compare.methods=noise", "'noise' is text; expected a list"),
        ("compare.seeds=[0, 0]", "[0, 0] is empty or names something twice"),
        ("compare.seeds=[-1]", "-1 is negative"),
        ("compare.real_images=-3", "-3 is negative"),
        ("compare.real_image=3", "unknown key, did you mean 'real_images'?"),
    ],
)
def test_wrong_values_of_the_section_are_refused(override, message, tmp_path):
    with pytest.raises(RecipeError) as caught:
        compare([write(tmp_path / "small.yaml")], out=tmp_path / "out", overrides=[override])
    assert message in str(caught.value) and not (tmp_path / "out").exists()


def test_bad_input_is_one_line_and_its_exit_code(tmp_path):
    other = write(tmp_path / "other.yaml", quantize={"bits": "w8a8"})
    done = command(write(tmp_path / "small.yaml"), other, "--out", tmp_path / "out")
    assert done.returncode == 3 and not done.stdout and len(done.stderr.strip().splitlines()) == 1
    assert "quantize.bits is 'w4a4' in small and 'w8a8' in other" in done.stderr and not (tmp_path / "out").exists()


def test_too_few_real_images_cost_no_synthesis(tmp_path):
    with pytest.raises(RecipeError, match="no 9968 real images for each of 2 seeds that are not evaluated"):
        compare([write(tmp_path / "small.yaml")], out=tmp_path / "out", overrides=["compare.real_images=9968"])
    assert not list(tmp_path.glob("out/stages/sardfq*"))


def test_the_folder_of_another_run_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/recipe.yaml").write_text("name: small\n")
    with pytest.raises(InputError, match=r"holds another run \(small\)"):
        compare([write(tmp_path / "small.yaml")], out=tmp_path / "out")
