"""The page of a run, from the files in its folder."""

import copy
import json
import re

import pytest
from html_page import parsed
from run_folder import METRICS, unevaluated, write_run

from vitdfq.common.errors import InputError
from vitdfq.reports.run_page import write_run_page

SECTIONS = ["Summary", "Results", "Without data", "Images", "Attention", "Losses", "Error by unit", "Size, time and memory"]
SECTIONS += ["Recipe", "Make it again"]


def page_of(folder, metrics=None):
    write_run_page(folder, metrics)
    read = parsed((folder / "reports/index.html").read_text())
    assert read.problems == []
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in read.images)
    return read


def test_every_section_is_there(tmp_path):
    pytest.importorskip("matplotlib")
    page = page_of(write_run(tmp_path / "run"))
    assert page.headings == SECTIONS
    assert len(page.images) == 4 + 1 + 2 + 1  # images, attention, losses of synthesis and of training, units
    for words in (
        "small: zoo:deit at W4A4",
        "No real image was used: method sardfq made 4 images from the model alone in 60 steps.",
        "0.71 MB; the parameters in float32 take 4.82 MB, 6.8 times as much",
        "On 300 images that it was not calibrated on, it gives the teacher's class on 97.67 %, with a KL of 0.0169 nats; "
        "its top-1 is 92.50 %, the teacher's 93.00 %.",
        "calibrated on noise images has 95.00 % and a KL of 0.0500",
        "First the target (soft label), then the teacher's class and its confidence.",
        "Dress Dress 0.81",
        "class 7 0.40",
        "calibration and training 74.7 1.13",
        "vitdfq run recipe.yaml",
        "dataset: zoo:fashion-mnist",
    ):
        assert words in page.text, words


def test_the_saved_student_is_set_off_from_the_others(tmp_path):
    folder = write_run(tmp_path / "run")
    write_run_page(folder)
    [strong] = re.findall(r'<tr class="strong">.*?</tr>', (folder / "reports/index.html").read_text())
    assert "97.67" in strong and "sardfq" in strong


def test_a_run_without_evaluation_says_what_is_known_without_data(tmp_path):
    page = page_of(write_run(tmp_path / "run", unevaluated()))
    assert page.headings == SECTIONS
    unknown = "There were no images to evaluate on, so its accuracy is not known."
    assert (
        f"{unknown} On 32 synthetic images (dead leaves) that it never saw, it gives the teacher's class on 100.0 %" in page.text
    )
    assert "agreement 100.00 % on 32 synthetic images" in page.text  # a key figure
    assert "top-1" not in page.text and "None" not in page.text and "Expected of real images" not in page.text


def test_what_is_expected_stands_beside_what_was_measured(tmp_path):
    numbers = {"value": 96.5, "low": 81.0, "high": 99.2}
    expected = {"agreement": numbers, "top1_loss": {"value": 1.2, "low": -0.25, "high": 7.9}, "level": 0.9}
    page = page_of(write_run(tmp_path / "run", copy.deepcopy(METRICS) | {"expected": expected}))
    assert "agreement with the teacher 96.5 % (81.0 to 99.2) 97.7 %" in page.text
    assert "loss of top-1 1.2 points (-0.2 to 7.9) 0.5 points" in page.text


def test_without_evaluation_the_summary_and_the_key_figures_say_what_is_expected(tmp_path):
    numbers = {"value": 96.5, "low": 81.0, "high": 99.2}
    expected = {"agreement": numbers, "top1_loss": {"value": 1.2, "low": -0.25, "high": 7.9}, "level": 0.9}
    page = page_of(write_run(tmp_path / "run", unevaluated() | {"expected": expected}))
    words = "agreement with the teacher 96.5 % (81.0 to 99.2), loss of top-1 1.2 points (-0.2 to 7.9)."
    assert f"Expected of real images, from synthetic images alone: {words}" in page.text
    assert "expected agreement 96.5 % 81.0 to 99.2" in page.text and "expected loss of top-1 1.2 points -0.2 to 7.9" in page.text
    assert "measured" not in page.text.partition("on real images expected (interval)")[2][:20]


def test_features_have_their_own_scores(tmp_path):
    metrics = copy.deepcopy(METRICS)
    scores = {"num_images": 32, "cosine": 0.98765, "relative_error": 0.1, "features_sqnr_db": 20.0}
    metrics |= {"synthetic": {"calibration": scores, "dead_leaves": scores}, "baselines": {}, "read_by": None}
    metrics["teacher"] |= {"top1": None, "top5": None}
    bits = {key: METRICS["student"][key] for key in ("weight_bits", "activation_bits", "dynamic", "mixed")}
    metrics["student"] = scores | bits | {"top1": None, "top5": None, "num_images": 300}
    page = page_of(write_run(tmp_path / "run", metrics))
    assert "On 300 images that it was not calibrated on, its features have a cosine of 0.9877 to the teacher's." in page.text
    assert "relative error" in page.text and "agreement" not in page.text


def test_text_of_others_is_escaped(tmp_path):
    hostile = "<script>alert('x')</script>"
    page = page_of(write_run(tmp_path / "run", recipe=f"name: small\nnotes: {hostile}\n", name=hostile))
    assert page.text.count(hostile) == 7  # target and class of three images, and the recipe


def test_a_run_that_ends_with_its_images_has_a_page_of_them(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "metrics.json").unlink()
    metrics = {key: METRICS[key] for key in ("recipe", "vitdfq", "seed", "device", "num_processes", "synthesis")}
    page = page_of(folder, metrics)
    assert {"Summary", "Images", "Recipe"} <= set(page.headings) and "Results" not in page.headings
    assert "Nothing is quantized yet." in page.text and "distill" not in page.text


def test_what_is_not_there_leaves_no_gap(tmp_path):
    folder = write_run(tmp_path / "run")
    for name in (
        "stages/attention.safetensors",
        "reports/unit_sqnr.json",
        "stages/losses/images.json",
        "stages/losses/model.json",
    ):
        (folder / name).unlink()
    (folder / "stages/finished.json").write_text("{")  # damaged
    page = page_of(folder)
    assert page.headings == [name for name in SECTIONS if name not in ("Attention", "Losses", "Error by unit")]
    assert "seconds peak" not in page.text


def test_methods_without_steps_have_no_curves_of_synthesis(tmp_path):
    metrics = METRICS | {"synthesis": METRICS["synthesis"] | {"method": "dead_leaves", "steps": 0}}
    page = page_of(write_run(tmp_path / "run", metrics))
    assert "without optimization" in page.text and "Synthesis: each loss" not in page.text


def test_without_matplotlib_numbers_stand_in_place_of_charts(tmp_path, monkeypatch):
    monkeypatch.setattr("vitdfq.reports.charts.has_matplotlib", lambda: False)
    monkeypatch.setattr("vitdfq.reports.run_page.has_matplotlib", lambda: False)
    page = page_of(write_run(tmp_path / "run"))
    assert page.headings == SECTIONS and len(page.images) == 4
    assert page.text.count("pip install 'vitdfq[report]' brings matplotlib") == 3
    assert "blocks.1 21.0 17.0" in page.text


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"metrics\.json"):
        write_run_page(tmp_path)


def test_the_same_files_give_the_same_page(tmp_path):
    folder = write_run(tmp_path / "run")
    page_of(folder)
    first = (folder / "reports/index.html").read_bytes()
    page_of(folder, json.loads((folder / "metrics.json").read_text()))
    assert (folder / "reports/index.html").read_bytes() == first
