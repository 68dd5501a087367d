"""Blocks of integer students by compiled kernels, with softmax on twin grids of every shift."""

import pytest
import torch
from fused_blocks import blocks_of, each_target, require_kernels, site_by_site
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.quantization import quantize
from vitdfq.quantization.integer import to_integer
from vitdfq.quantization.integer.fused import FusedBlock
from vitdfq.quantization.quantizers.twin import TwinSoftmax


def twin_blocks(
    teacher: nn.Module, images: torch.Tensor, bits: int, shift: int, *, renormalize: bool = False
) -> list[FusedBlock]:
    """Integer blocks whose softmax has a twin grid of this shift."""
    softmax = {"quantizer": "twin_softmax", "bits": bits, "renormalize": renormalize}
    student = calibrate(quantize(teacher, bits="w8a8", softmax=softmax), teacher, images, steps=["observe"])
    for part in student.modules():
        if isinstance(part, TwinSoftmax):
            levels, boundaries = part.tables(torch.tensor([[float(shift)]], dtype=torch.float64))
            part.levels.copy_(levels[0]), part.boundaries.copy_(boundaries[0]), part.shift.fill_(shift)
    return blocks_of(to_integer(student))


@pytest.mark.parametrize("renormalize", [False, True])
@pytest.mark.parametrize(("bits", "shift"), [(2, 0), (2, 14), (3, 2), (4, 6), (6, 3), (8, 0), (8, 1), (8, 5), (8, 7), (8, 8)])
def test_a_twin_softmax_of_any_shift(monkeypatch, tiny_vit, images, bits, shift, renormalize):
    """Rows from even to peaked, so that fine levels, coarse ones and those at the split occur."""
    require_kernels()
    for attention in (part.attn for part in tiny_vit.blocks):
        attention.qkv.weight.data[:64] *= 4
    (first, *_) = twin_blocks(tiny_vit, images, bits, shift, renormalize=renormalize)
    x = torch.randn(64, 17, 32, generator=torch.Generator().manual_seed(3))
    wanted = site_by_site(monkeypatch, first, x)
    for target in each_target(monkeypatch):
        errors = (first(x) - wanted).flatten(1).norm(dim=1) / (wanted - x).flatten(1).norm(dim=1)
        assert (errors < 1e-5).sum() >= 48, (target, errors)  # others have a value within float rounding of a boundary
        assert errors.max() < 0.2, target


@pytest.mark.parametrize("shift", [0, 1, 3, 7])
@pytest.mark.parametrize("tokens", [1, 2, 4, 8, 16, 64])
def test_halfway_between_levels_of_a_twin_softmax(monkeypatch, tiny_vit, images, tokens, shift):
    """Equal tokens have weights 1 / tokens, many of them halfway between two levels: the lower one, as in the quantizer."""
    require_kernels()
    (first, *_) = twin_blocks(tiny_vit, images, 8, shift)
    x = torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(3)).expand(-1, tokens, -1)
    wanted = site_by_site(monkeypatch, first, x)
    for target in each_target(monkeypatch):
        torch.testing.assert_close(first(x), wanted, rtol=1e-5, atol=1e-5, msg=lambda text, target=target: f"{target}: {text}")


@pytest.mark.parametrize(("bits", "shift"), [(8, 9), (8, 19), (4, 13), (2, 15)])
def test_a_twin_softmax_whose_levels_exceed_16_bits_runs_site_by_site(tiny_vit, images, bits, shift):
    assert not twin_blocks(tiny_vit, images, bits, shift)
