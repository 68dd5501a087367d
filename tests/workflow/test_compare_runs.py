"""`vitdfq compare` over folders of finished runs."""

import copy
import csv
import json

import pytest
from html_page import parsed
from run_folder import METRICS, RECIPE, unevaluated, write_run

from vitdfq.common.errors import InputError
from vitdfq.workflow.compare_runs import compare_runs


def changed(**student) -> dict:
    metrics = copy.deepcopy(METRICS)
    metrics["student"] |= student
    return metrics


@pytest.fixture
def folders(tmp_path):
    """Three runs on the same images, named by their rank."""
    scores = {"third": {"kl": 0.05}, "second": {"kl": 0.01, "agreement": 97.0}, "first": {"kl": 0.01, "agreement": 98.0}}
    return [write_run(tmp_path / name, changed(**student)) for name, student in scores.items()]


def names(content) -> list[tuple[str, int, int]]:
    return [(row["run"], row["group"], row["rank"]) for row in content["runs"]]


def test_one_table_by_kl_then_agreement_in_four_forms(folders, tmp_path, caplog):
    content = compare_runs(folders, out=tmp_path / "out")
    assert names(content) == [("first", 1, 1), ("second", 1, 2), ("third", 1, 3)]
    assert json.loads((tmp_path / "out/compare.json").read_text()) == content
    page = (tmp_path / "out/compare.md").read_text()
    assert page.index("| 1 | first |") < page.index("| 2 | second |") < page.index("| 3 | third |")
    assert "- measured on 300 images of zoo:fashion-mnist, test" in page and "group" not in page
    rows = list(csv.DictReader((tmp_path / "out/compare.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["first", "second", "third"]
    assert (rows[0]["kl"], rows[0]["megabytes"], rows[0]["seconds"], rows[0]["bits"]) == ("0.01", "0.71", "136.2", "W4A4")
    read = parsed((tmp_path / "out/reports/index.html").read_text())
    assert read.problems == [] and read.headings == ["Summary", "Results", "Charts", "Make it again"]
    assert "Nearest to its teacher of 3 runs (300 images of zoo:fashion-mnist, test) is first: KL 0.01000, 0.71 MB." in read.text
    assert "compare.md, compare.csv, compare.json, reports/index.html" in caplog.text


@pytest.mark.parametrize(
    ("num_images", "recipe"),
    [
        (200, RECIPE),
        (300, RECIPE.replace("split: test", "split: train")),
        (300, RECIPE.replace("split: test", "split: test, match_names: false")),
        (300, RECIPE.replace("zoo:fashion-mnist", "pictures")),
    ],
)
def test_runs_on_other_images_are_not_ranked_among_these(folders, tmp_path, num_images, recipe):
    other = write_run(tmp_path / "other", changed(kl=0.0001, num_images=num_images), recipe)
    content = compare_runs([other, *folders], out=tmp_path / "out")
    assert names(content) == [("first", 1, 1), ("second", 1, 2), ("third", 1, 3), ("other", 2, 1)]
    for text in ((tmp_path / "out/compare.md").read_text(), parsed((tmp_path / "out/reports/index.html").read_text()).text):
        assert "These runs were not measured on the same images: a rank counts among the runs of its group" in text
        assert "1.1" in text and "2.1" in text and f"group 2: {num_images} images of " in text


def test_how_images_are_read_does_not_make_them_others(folders, tmp_path):
    other = write_run(tmp_path / "other", changed(kl=0.5), RECIPE.replace("split: test", "split: test, batch_size: 7"))
    assert compare_runs([other, *folders], out=tmp_path / "out")["groups"] == ["300 images of zoo:fashion-mnist, test"]


def test_runs_without_evaluation_are_ranked_without_data(folders, tmp_path):
    near, far = unevaluated(), unevaluated()
    near["synthetic"]["dead_leaves"]["kl"] = 0.001
    runs = [write_run(tmp_path / name, metrics) for name, metrics in (("far", far), ("near", near))]
    content = compare_runs(runs, out=tmp_path / "alone")
    assert names(content) == [("near", 1, 1), ("far", 1, 2)]
    page = (tmp_path / "alone/compare.md").read_text()
    assert "not evaluated: ranked by KL on synthetic images of seed 3" in page and "top-1" not in page
    mixed = compare_runs([*runs, *folders], out=tmp_path / "mixed")
    assert names(mixed)[3:] == [("near", 2, 1), ("far", 2, 2)]
    other_seed = write_run(tmp_path / "seed", near | {"seed": 4})
    assert len(compare_runs([*runs, other_seed], out=tmp_path / "seeds")["groups"]) == 2


def test_what_each_run_expects_of_real_images_is_in_the_table(folders, tmp_path):
    agreement, loss = {"value": 93.2, "low": 66.3, "high": 98.6}, {"value": 1.3, "low": -0.2, "high": 7.5}
    expected = {"agreement": agreement, "top1_loss": loss, "level": 0.9}
    folder = write_run(tmp_path / "expects", copy.deepcopy(METRICS) | {"expected": expected})
    compare_runs([*folders, folder], out=tmp_path / "out")
    page = (tmp_path / "out/compare.md").read_text()
    assert "| expected agreement % | at least | expected loss of top-1 | at most |" in page and "ends of 90 % intervals" in page
    assert "| 93.2 | 66.3 | 1.3 | 7.5 |" in page
    compare_runs(folders, out=tmp_path / "without")
    assert "expected" not in (tmp_path / "without/compare.md").read_text()


def test_other_teachers_are_pointed_out(folders, tmp_path):
    metrics = copy.deepcopy(METRICS)
    metrics["teacher"]["name"] = "zoo:vit"
    compare_runs([*folders, write_run(tmp_path / "vit", metrics)], out=tmp_path / "out")
    assert "- The runs have different teachers" in (tmp_path / "out/compare.md").read_text()


def test_runs_of_one_name_are_called_by_their_paths(tmp_path):
    paths = [write_run(tmp_path / name / "run") for name in "ab"]
    assert {row["run"] for row in compare_runs(paths, out=tmp_path / "out")["runs"]} == set(map(str, paths))


def test_recipes_and_folders_are_not_mixed(folders, command, tmp_path):
    code, out, err = command("compare", folders[0], "quickstart")
    assert code == 2 and not out and err.count("\n") == 1
    assert f"recipes or folders of finished runs, not both: {folders[0]} is a folder, quickstart is not" in err


def test_the_command_prints_markdown(folders, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = command("compare", *folders)
    assert code == 0 and out == (tmp_path / "runs/compare_third_second_first/compare.md").read_text() + "\n"
    code, out, _ = command("compare", *folders, "--out", tmp_path / "out", "--format", "json")
    assert json.loads(out) == json.loads((tmp_path / "out/compare.json").read_text())
    code, _, err = command("compare", *folders, "--set", "seed=3")
    assert code == 2 and "finished runs are compared as they are" in err


def test_other_folders_are_refused(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty: no metrics\.json"):
        compare_runs([*folders, tmp_path / "empty"])
    with pytest.raises(InputError, match="named twice"):
        compare_runs([*folders, tmp_path / "empty" / ".." / "first"])
    with pytest.raises(InputError, match="choose another --out"):
        compare_runs(folders, out=folders[0])
    (folders[0] / "metrics.json").write_text("{}")
    with pytest.raises(InputError, match="not the metrics of a finished run"):
        compare_runs(folders, out=tmp_path / "out")


def test_results_are_written_again_over_older_ones(folders, tmp_path):
    compare_runs(folders, out=tmp_path / "out")
    assert len(compare_runs(folders[:2], out=tmp_path / "out")["runs"]) == 2


@pytest.fixture(autouse=True)
def messages(caplog):
    caplog.set_level("INFO")
