"""Biases of queries and values beside the layer that writes them, as in BEiT: rotated with heads, refilled when dequantized."""

from dataclasses import replace

import pytest
import torch
from tiny import TINY, make_student_float
from torch import nn

from vitdfq.calibration.equalize import equalize
from vitdfq.checkpoint.dequantize import _place_bias
from vitdfq.models import FAMILIES, Rows, load_teacher
from vitdfq.models.family import with_side_bias
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize

VIT = FAMILIES["vit"]


class SideBiases(nn.Module):
    """A linear layer without bias, and biases of the first and the last third of what it writes."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        width = linear.out_features // 3
        self.q_bias, self.v_bias = (nn.Parameter(torch.randn(width), requires_grad=False) for _ in range(2))

    def forward(self, x):
        return self.linear(x) + torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])


def projections(model):
    """ViT's, one level deeper and with the biases."""

    def deeper(rows: Rows, bias: str | None) -> Rows:
        return Rows(f"{rows.linear}.linear", rows.rows, bias and f"{rows.linear}.{bias}")

    return [
        replace(
            site,
            queries=deeper(site.queries, "q_bias"),
            keys=deeper(site.keys, None),
            values=deeper(site.values, "v_bias"),
        )
        for site in VIT.projections(model)
    ]


def side_biases(model):
    return with_side_bias(projections(model))


def norm_readers(model):
    return [
        replace(site, readers=tuple(f"{name}.linear" if name.endswith("qkv") else name for name in site.readers))
        for site in VIT.norm_readers(model)
    ]


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setitem(
        FAMILIES, "vit", replace(VIT, projections=projections, norm_readers=norm_readers, side_biases=side_biases)
    )
    torch.manual_seed(0)
    teacher = load_teacher("vit_tiny_patch16_224", pretrained=False, num_classes=5, qkv_bias=False, **TINY["vit"][1])
    for block in teacher.blocks:
        block.attn.qkv = SideBiases(block.attn.qkv)
    return teacher.double()


IMAGES = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_rotated_with_their_heads(model):
    rotated = prepare(model, steps=["rotate_heads"])
    assert not torch.allclose(rotated.blocks[0].attn.qkv.v_bias, model.blocks[0].attn.qkv.v_bias)
    torch.testing.assert_close(rotated(IMAGES), model(IMAGES), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_equalized_with_the_values(model):
    student = quantize(model)
    equalize(student, model, IMAGES)
    assert not torch.allclose(student.blocks[0].attn.qkv.v_bias, model.blocks[0].attn.qkv.v_bias)
    torch.testing.assert_close(make_student_float(student, model)(IMAGES), model(IMAGES), rtol=1e-9, atol=1e-9)


def test_a_bias_of_the_layer_moves_into_them(model):
    before, name = model(IMAGES), "blocks.1.attn.qkv.linear.bias"
    bias = torch.randn(96, dtype=torch.float64)
    state = dict(model.state_dict()) | {name: bias}
    model.blocks[1].attn.qkv.linear.bias = nn.Parameter(bias, requires_grad=False)
    expected = model(IMAGES)
    model.blocks[1].attn.qkv.linear.bias = None
    _place_bias(model, state, name, {})
    assert name not in state
    model.load_state_dict(state)
    torch.testing.assert_close(model(IMAGES), expected, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(expected, before)
