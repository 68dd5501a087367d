"""The error of a student by unit."""

import pytest
from passes import batch_sizes

import vitdfq
from vitdfq.reports.plots import plot_unit_sqnr
from vitdfq.reports.sqnr import BATCH_SIZE, unit_sqnr


def test_the_drop_is_at_the_unit_of_low_precision(tiny_vit, images):
    student = vitdfq.quantize(tiny_vit, bits="w8a8", overrides={"blocks.1.mlp.fc2": {"bits": 2}})
    vitdfq.calibrate(student, tiny_vit, images, steps=["observe"])
    ratios = unit_sqnr(student, tiny_vit, images)
    assert list(ratios) == ["embed", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert ratios["blocks.0"] > 25 and ratios["blocks.1"] < ratios["blocks.0"] - 8


def test_equal_models_have_a_finite_ratio(tiny_vit, images, tmp_path):
    ratios = unit_sqnr(tiny_vit, tiny_vit, images)
    assert min(ratios.values()) > 200
    plot_unit_sqnr(ratios, tmp_path / "plot.png")


def test_the_ratio_does_not_depend_on_the_batch_size(tiny_vit, images, monkeypatch):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    one_batch = unit_sqnr(student, tiny_vit, images)
    assert len(images) <= BATCH_SIZE
    monkeypatch.setattr("vitdfq.reports.sqnr.BATCH_SIZE", 3)
    assert max(batch_sizes(student, lambda: unit_sqnr(student, tiny_vit, images))) == 3
    assert unit_sqnr(student, tiny_vit, images) == pytest.approx(one_batch, abs=0.011)
