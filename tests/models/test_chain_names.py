"""Names of units and sites: recipes, reports and checkpoints rely on them."""

import timm
import torch
from torch import nn

from vitdfq.models import attention_sites, open_model, units


def opened(name: str, **arguments) -> nn.Module:
    model = timm.create_model(name, num_classes=5, **arguments).eval()
    open_model(model)
    return model


def test_vit():
    model = opened("deit_tiny_distilled_patch16_224", img_size=(32, 16), patch_size=8, embed_dim=32, depth=2, num_heads=4)
    assert [unit.name for unit in units(model)] == ["embed", "blocks.0", "blocks.1", "head"]
    first, last = attention_sites(model)
    assert (first.name, last.name) == ("blocks.0.attn", "blocks.1.attn")
    assert (last.depth, last.num_heads, last.grid, last.num_prefix_tokens) == (1, 4, (4, 2), 2)
    assert (last.num_windows, last.class_row) == (1, True)


def test_vit_that_averages_has_no_class_row():
    arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    assert not attention_sites(opened("vit_tiny_patch16_224", global_pool="avg", **arguments))[0].class_row


def test_parallel_blocks_have_two_sites_each():
    model = opened("vit_small_patch16_18x2_224", img_size=16, patch_size=8, embed_dim=32, depth=2, num_heads=2)
    sites = attention_sites(model)
    assert [site.depth for site in sites] == [0, 0, 1, 1]
    assert sites[3].name == "blocks.1.attns.1.attn"


def test_swin():
    model = opened(
        "swin_tiny_patch4_window7_224",
        img_size=(32, 16),
        patch_size=2,
        window_size=4,
        embed_dim=16,
        depths=(1, 2),
        num_heads=(2, 4),
    )
    names = [unit.name for unit in units(model)]
    assert names == [
        "embed",
        "layers.0.blocks.0",
        "layers.1.downsample",
        "layers.1.blocks.0",
        "layers.1.blocks.1",
        "head",
    ]
    sites = attention_sites(model)
    assert [site.name for site in sites] == [f"layers.{i}.blocks.{j}.attn" for i, j in [(0, 0), (1, 0), (1, 1)]]
    assert [site.num_windows for site in sites] == [8, 2, 2]  # 16 x 8 patches, then 8 x 4, in windows of 4 x 4
    assert [site.grid for site in sites] == [(4, 4)] * 3
    assert not any(site.class_row or site.num_prefix_tokens for site in sites)


def test_levit():
    model = opened("levit_128s", img_size=(80, 48), embed_dim=(32, 48), key_dim=8, depth=(1, 2), num_heads=(2, 3))
    assert [unit.name for unit in units(model)] == [
        "embed",
        "stages.0.blocks.0",
        "stages.1.downsample",
        "stages.1.blocks.0",
        "stages.1.blocks.1",
        "head",
    ]
    sites = attention_sites(model)
    names = ["0.blocks.0.attn", "1.downsample.attn_downsample", "1.blocks.0.attn", "1.blocks.1.attn"]
    assert [site.name for site in sites] == [f"stages.{name}" for name in names]
    assert [site.depth for site in sites] == [0, 1, 2, 3]
    assert [site.num_heads for site in sites] == [2, 4, 3, 3]  # timm's downsampling has in_dim / key_dim heads
    assert [site.grid for site in sites] == [(5, 3), (5, 3), (3, 2), (3, 2)]
    assert [site.query_grid for site in sites] == [None, (3, 2), None, None]
    assert not any(site.class_row or site.num_prefix_tokens or site.num_windows > 1 for site in sites)


def test_units_see_a_module_swapped_in_later():
    model = opened("vit_tiny_patch16_224", img_size=16, patch_size=8, embed_dim=32, depth=1, num_heads=2)
    chain = units(model)
    model.head = nn.Linear(32, 2)
    x = torch.randn(1, 3, 16, 16)
    for unit in chain:
        x = unit.forward(x)
    assert x.shape == (1, 2)
