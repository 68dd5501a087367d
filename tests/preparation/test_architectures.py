"""The default steps on every architecture of every family: the function is unchanged with all parameters random."""

import copy

import pytest
import torch
from architectures import ARCHITECTURES, difference, randomized, some_images
from torch import nn

from vitdfq.models import family_of, open_model
from vitdfq.preparation import TRANSFORMS
from vitdfq.preparation.prepare import default_steps

POST_NORM = {  # their norms write into the stream
    *("vit_post_norm", "eva02_enormous", "relpos_table"),
    *("swin_v2", "swin_v2_padded", "swin_v2_pretrained_window", "swin_v2_cr", "swin_v2_cr_extra_norms"),
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_prepared_computes_the_same(kind):
    plain = randomized(kind)
    prepared = copy.deepcopy(plain)
    open_model(prepared)
    steps = default_steps(prepared)
    assert all(TRANSFORMS[name](prepared).changed for name in steps)
    assert difference(plain, prepared) < 1e-9
    if family_of(prepared).rotation:
        assert ("rotate_residual" in steps) == (kind not in POST_NORM)
        assert "rotate_mlp" in steps


@pytest.mark.parametrize("kind", ["eva", "beit", "relpos"])
def test_a_block_with_another_mlp_keeps_its_stream(kind):
    """What it adds to the stream would not be rotated."""
    model = randomized(kind)
    open_model(model)
    model.blocks[1].mlp = nn.Sequential(model.blocks[1].mlp)
    assert "rotate_residual" not in default_steps(model)
    with pytest.raises(ValueError, match="a block has another branch"):
        TRANSFORMS["rotate_residual"](model)
    expected = model(some_images(model))
    TRANSFORMS["rotate_mlp"](model)
    torch.testing.assert_close(model(some_images(model)), expected)
