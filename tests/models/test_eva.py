"""What only models with rotary positions have: the grid of the image behind every block, and heads that share their values."""

import pytest
import timm
import torch
from architectures import ARCHITECTURES, randomized

from vitdfq.models import load_teacher, open_model, projections, units

DYNAMIC = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "dynamic_img_size": True}


def test_a_model_of_any_size_takes_other_images_but_its_chain_does_not():
    plain = timm.create_model("vit_small_patch16_dinov3", num_classes=5, **DYNAMIC).eval()
    opened = load_teacher(plain, **DYNAMIC)
    images = torch.randn(1, 3, 48, 32)
    torch.testing.assert_close(opened(images), plain(images))
    first, block, *_ = units(opened)
    with pytest.raises(ValueError, match="takes images of 4 x 4 patches, not 29 tokens"):
        block.forward(first.forward(images))


def test_positions_of_patches_matter_and_prefix_tokens_have_none():
    attention = opened("eva02_separate_qkv").blocks[0].attn
    x = torch.randn(1, 2, 1 + 16, 16, dtype=torch.float64)
    rope = torch.randn(16, 32, dtype=torch.float64)
    turned = attention.positioned(x, rope)
    assert torch.equal(turned[:, :, 0], x[:, :, 0]) and not torch.allclose(turned[:, :, 1:], x[:, :, 1:])
    assert attention.positioned(x, None) is x


def test_nothing_is_undone_where_heads_share_their_values():
    sites = projections(opened("sapiens"))
    assert [(len(site.keys.rows), len(site.values.rows), site.reader) for site in sites] == [(32, 32, None)] * 2


def opened(kind: str) -> torch.nn.Module:
    assert kind in ARCHITECTURES
    model = randomized(kind)
    open_model(model)
    return model
