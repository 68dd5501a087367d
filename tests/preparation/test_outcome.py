"""One line says what was changed and what was not, and why: in the log, and in the model's description."""

import logging

import pytest
from tiny import make_tiny
from torch import nn

from vitdfq.preparation import prepare
from vitdfq.preparation.outcome import Outcome, in_one_line


def test_what_shares_a_verb_or_a_reason_is_said_together():
    outcomes = [
        Outcome("rotated", "the residual stream", "it is fast asleep"),
        Outcome("folded", "4 LayerScales"),
        Outcome("rotated", "heads"),
        Outcome("rotated", "MLPs"),
        Outcome("rotated", "ears", "it is fast asleep"),
    ]
    assert in_one_line(outcomes) == (
        "folded: 4 LayerScales; rotated: heads, MLPs; not rotated: the residual stream, ears, because it is fast asleep"
    )


def test_all_rotations_of_a_vit(caplog):
    line = "rotated: the residual stream of 2 blocks (4 LayerScales folded), heads, MLPs"
    with caplog.at_level(logging.INFO, "vitdfq"):
        assert prepare(make_tiny("layer_scale")).vitdfq["prepared"] == line
    assert [record.getMessage() for record in caplog.records] == [line]


def test_swin_has_a_stream_in_each_stage():
    assert prepare(make_tiny("swin")).vitdfq["prepared"] == "rotated: 2 residual streams of 4 blocks, heads, MLPs"


def test_a_family_without_rotation_says_so():
    assert prepare(make_tiny("levit")).vitdfq["prepared"] == (
        "folded: 22 BatchNorms; not rotated: the residual stream, heads, MLPs, "
        "because rotation works on vit, swin, eva, beit, relpos, swin_v2 and swin_v2_cr only, not on this LevitDistilled"
    )


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_heads_of_which_a_part_is_normalized_are_counted():
    teacher = make_tiny("vit")
    teacher.blocks[0].attn.q_norm = nn.LayerNorm(16)
    line = "rotated: heads (queries and keys of 2, values of 3 of 3 attentions)"
    assert prepare(teacher, steps=["rotate_heads"]).vitdfq["prepared"] == line
    for block in teacher.blocks:
        block.attn.q_norm, block.attn.norm = nn.LayerNorm(16), nn.LayerNorm(32)
    assert "not rotated: heads, because rotation works on attentions without norms" in prepare(teacher).vitdfq["prepared"]


def test_a_step_that_finds_nothing_says_so(tiny_vit):
    prepared = prepare(tiny_vit, steps=["fold_layer_scale", "fold_batch_norm"])
    assert prepared.vitdfq["prepared"] == (
        "not folded: LayerScale, because there is no LayerScale; not folded: BatchNorm, because there is no BatchNorm"
    )


def test_without_steps_that_is_said_too(tiny_vit):
    assert prepare(tiny_vit, steps=[]).vitdfq["prepared"] == "no preparation: no step was asked for"


def test_preparing_twice_says_both(tiny_vit):
    twice = prepare(prepare(tiny_vit, steps=["rotate_heads"]), steps=["rotate_mlp"])
    assert twice.vitdfq["prepared"] == "rotated: heads; then rotated: MLPs"
