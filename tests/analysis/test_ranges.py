"""Ranges and outliers."""

import pytest
import torch

import vitdfq
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.ranges import value_ranges
from vitdfq.analysis.untrained import calibrated_switches
from vitdfq.runtime.run import Run


def ranges_of(teacher, images, **options) -> dict:
    switches = calibrated_switches(vitdfq.quantize(teacher, **options), teacher, images, ["observe"], 0, Run())
    return {(row.site, row.part): row for row in value_ranges(HeldOutPasses(switches, teacher, images))}


@torch.no_grad()
def test_an_outlier_channel_stands_out_where_it_is_read(tiny_vit, images):
    before = ranges_of(tiny_vit, images, bits="w4a4")
    tiny_vit.blocks[1].norm2.weight[3] *= 50
    after = ranges_of(tiny_vit, images, bits="w4a4")
    read = ("blocks.1.mlp.fc1", "input")
    assert after[read].channel_ratio > 10 * before[read].channel_ratio
    assert after[read].peak_to_rms > 1.5 * before[read].peak_to_rms
    assert max(after, key=lambda key: after[key].channel_ratio) == read


@torch.no_grad()
def test_numbers_of_a_weight_by_hand(tiny_vit, images):
    weight = tiny_vit.blocks[0].mlp.fc2.weight
    weight.fill_(1.0)
    weight[0, 0] = -8.0
    row = ranges_of(tiny_vit, images, bits="w8a8")["blocks.0.mlp.fc2", "weight"]
    assert (row.bits, row.least, row.largest) == (8, -8.0, 1.0)
    assert row.peak_to_rms == pytest.approx(8 / ((weight.numel() + 63) / weight.numel()) ** 0.5)
    assert row.channel_ratio == 8.0


def test_every_quantizer_has_a_range_and_more_bits_round_better(tiny_vit, images):
    few, many = (ranges_of(tiny_vit, images, bits=bits, overrides={"*": {"bits": int(bits[1])}}) for bits in ("w3a3", "w8a8"))
    assert list(few) == list(many) and len(few) == 2 * 20
    assert all(few[key].sqnr_db < many[key].sqnr_db for key in few)
    softmax = many["blocks.0.attn.av", "left"]
    assert softmax.least >= 0 and softmax.largest <= 1 + 1e-6
