"""Attention maps of the last block, and the priors that synthesis drew."""

from dataclasses import replace

import pytest
import torch
from tiny import make_tiny

from vitdfq.models import attention_sites, record
from vitdfq.synthesis import LOSSES, synthesize
from vitdfq.synthesis.attention_maps import _on_patches, attention_maps, attention_priors
from vitdfq.synthesis.losses.attention_prior import attention_prior


@pytest.mark.parametrize("kind", ["vit", "deit", "swin"])
def test_maps_are_the_last_blocks_attention_on_patches(kind):
    teacher = make_tiny(kind)
    site = attention_sites(teacher)[-1]
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with record(teacher, [f"{site.name}.softmax"]) as recorded:
        teacher(images)
    attention = recorded[f"{site.name}.softmax"]  # (B * windows, H, N, N)
    rows = attention[:, :, 0] if site.class_row else attention.mean(2)
    expected = rows[:, 1, site.num_prefix_tokens :].view(2 * site.num_windows, *site.grid)[0]
    maps = attention_maps(teacher, images)
    assert maps.shape[:2] == (2, site.num_heads)
    torch.testing.assert_close(maps[0, 1, : site.grid[0], : site.grid[1]], expected)


def test_windows_form_a_square():
    site = replace(attention_sites(make_tiny("swin"))[-1], grid=(1, 2), num_windows=4)
    rows = torch.arange(8.0).view(1, 4, 1, 2)
    assert _on_patches(rows, site)[0, 0].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_priors_are_those_of_synthesis(monkeypatch):
    teacher = make_tiny("vit")
    drawn = []

    def listening(ctx, **options):
        drawn.append(ctx.drawn["attention_prior"]["blocks.2.attn"])
        return attention_prior(ctx, **options)

    monkeypatch.setitem(LOSSES, "attention_prior", replace(LOSSES["attention_prior"], function=listening))
    section = {"method": "sardfq", "num_images": 3, "steps": 1, "seed": 5, "max_regions": 1}
    synthesize(teacher, **section)
    priors = attention_priors(teacher, 2, section)
    assert priors is not None and priors.shape == (2, 2, 4, 4)
    torch.testing.assert_close(priors.flatten(2), drawn[0][:2, 0, :, 1:])


@pytest.mark.parametrize(
    "section", [{"method": "psaq"}, {"method": "noise"}, {"steps": 0}, {"losses": {"attention_prior": {"weight": 0}}}]
)
def test_no_priors_without_their_loss(section):
    assert attention_priors(make_tiny("vit"), 2, section) is None
