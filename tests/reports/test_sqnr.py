"""The error of a student by unit."""

import pytest
from passes import batch_sizes

import vitdfq
from vitdfq.reports.plots import unit_sqnr_chart
from vitdfq.reports.sqnr import BATCH_SIZE, unit_sqnr


def test_the_drop_is_at_the_unit_of_low_precision(tiny_vit, images):
    student = vitdfq.quantize(tiny_vit, bits="w8a8", overrides={"blocks.1.mlp.fc2": {"bits": 2}})
    vitdfq.calibrate(student, tiny_vit, images, steps=["observe"])
    errors = unit_sqnr(student, tiny_vit, images)
    assert list(errors) == ["embed", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert errors["blocks.0"].so_far > 25 and errors["blocks.1"].so_far < errors["blocks.0"].so_far - 8


def test_a_units_own_error_does_not_contain_those_before_it(tiny_vit, images):
    student = vitdfq.quantize(tiny_vit, bits="w8a8", overrides={"blocks.0.*": {"weight": {"bits": 2}}})
    vitdfq.calibrate(student, tiny_vit, images, steps=["observe"])
    errors = unit_sqnr(student, tiny_vit, images)
    assert min(errors, key=lambda name: errors[name].own) == "blocks.0"
    assert errors["blocks.1"].own > errors["blocks.0"].own + 8 and errors["blocks.1"].so_far < errors["blocks.1"].own - 8
    assert errors["embed"].own == errors["embed"].so_far


def test_equal_models_have_a_finite_ratio(tiny_vit, images, tmp_path):
    errors = unit_sqnr(tiny_vit, tiny_vit, images)
    assert min(error.so_far for error in errors.values()) > 200
    unit_sqnr_chart(errors).save_png(tmp_path / "plot.png")


def test_the_ratio_does_not_depend_on_the_batch_size(tiny_vit, images, monkeypatch):
    student = vitdfq.calibrate(vitdfq.quantize(tiny_vit), tiny_vit, images, steps=["observe"])
    one_batch = unit_sqnr(student, tiny_vit, images)
    assert len(images) <= BATCH_SIZE
    monkeypatch.setattr("vitdfq.reports.sqnr.BATCH_SIZE", 3)
    assert max(batch_sizes(student, lambda: unit_sqnr(student, tiny_vit, images))) == 3
    for name, error in unit_sqnr(student, tiny_vit, images).items():
        assert (error.own, error.so_far) == pytest.approx((one_batch[name].own, one_batch[name].so_far), abs=0.011)
