"""Curves of losses, over a kill, a second run and other inputs."""

import json

import pytest

from vitdfq.runtime import loss_recorder
from vitdfq.runtime.loss_recorder import LossRecorder
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stages/losses/model.json"


def curves(path) -> dict:
    return json.loads(path.read_text())["curves"]


def steps_of(path, name="1_distill/distill/loss") -> list[int]:
    return [step for step, _ in curves(path)[name]["points"]]


def record(path, key: str, steps: range, title: str = "distill/loss") -> None:
    recorder = LossRecorder(path, key)
    for step in steps:
        recorder.record("1_distill", {title: 100.0 + step}, step)
    recorder.write()


def test_losses_are_kept_by_part_and_name_and_other_numbers_are_not(path, tmp_path):
    heard = []
    run = SharedRun(PartialResults(tmp_path / "parts"), [lambda *call: heard.append(call)], LossRecorder(path, "a"))
    for part in ("1_distill", "2_distill"):
        with run.part(part).progress("distill", total=2) as bar:
            bar.advance(1, loss=0.5)
            bar.advance(1, loss=0.25)
    with run.part("predictions").progress("imagenet", total=1) as bar:
        bar.advance(1, top1=70.0)
    run.forget()
    points = {"stride": 1, "points": [[1, 0.5], [2, 0.25]]}
    assert curves(path) == {"1_distill/distill/loss": points, "2_distill/distill/loss": points}
    assert len(heard) == 5


def test_an_interrupted_start_is_continued_where_its_parts_end(path):
    record(path, "a", range(1, 6))
    record(path, "a", range(4, 8))
    assert steps_of(path) == [1, 2, 3, 4, 5, 6, 7]
    record(path, "a", range(1, 3))  # the same again, from its beginning
    assert steps_of(path) == [1, 2]


def test_curves_of_other_inputs_are_replaced_or_removed(path):
    record(path, "a", range(1, 6))
    LossRecorder(path, "a").remove_others()
    assert path.is_file()
    record(path, "b", range(4, 6))
    assert steps_of(path) == [4, 5]
    LossRecorder(path, "a").remove_others()
    assert not path.is_file()


def test_a_long_curve_is_thinned_to_means(path, monkeypatch):
    monkeypatch.setattr(loss_recorder, "MOST_POINTS", 4)
    record(path, "a", range(1, 12))
    curve = curves(path)["1_distill/distill/loss"]
    assert curve == {"stride": 4, "points": [[4, 102.5], [8, 106.5]]}  # the means of 101 to 104 and of 105 to 108


def test_a_damaged_file_is_replaced(path):
    path.parent.mkdir(parents=True)
    path.write_text("{")
    record(path, "a", range(1, 3))
    assert steps_of(path) == [1, 2]


def test_a_run_without_losses_writes_no_file(path):
    record(path, "a", range(1, 3), title="gptq/units")
    assert not path.exists()
