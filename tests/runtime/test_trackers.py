"""Trackers receive the numbers of progress bars."""

import pytest
from accelerate.tracking import GeneralTracker

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import load_recipe
from vitdfq.runtime import trackers
from vitdfq.runtime.shared_run import SharedRun


class RecordingTracker(GeneralTracker):
    name = "recording"
    requires_logging_directory = False

    def __init__(self):
        super().__init__()
        self.logged, self.config, self.finished = [], None, False

    @property
    def tracker(self):
        return self

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **_):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


def test_the_numbers_of_a_bar_are_tracked(tmp_path):
    tracker = RecordingTracker()
    with trackers.tracked([tracker], "mine", tmp_path, {"recipe": "name: mine"}) as listeners:
        run = SharedRun(listeners=listeners).part("1_distill")
        with run.progress("distill", total=4) as bar:
            bar.advance(2, loss=0.5)
            bar.advance(2)
    with SharedRun().progress("distill", total=1) as bar:  # without listeners
        bar.advance(1, loss=0.1)
    assert tracker.logged == [(2, {"distill/loss": 0.5})]
    assert tracker.config == {"recipe": "name: mine"} and tracker.finished


def test_a_tracker_that_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", lambda: ["wandb"])
    with (
        pytest.raises(RecipeError, match="tensorboard is not installed; installed: wandb"),
        trackers.tracked(["tensorboard"], "", tmp_path, {}),
    ):
        pass


def test_a_misspelled_tracker_is_refused_with_the_recipe():
    with pytest.raises(RecipeError, match="did you mean 'tensorboard'"):
        load_recipe({"model": {"name": "zoo:deit"}, "trackers": ["tensorbord"]})
