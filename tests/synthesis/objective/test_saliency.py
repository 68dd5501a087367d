"""Saliency maps and their centers."""

from types import SimpleNamespace

import pytest
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.models import attention_sites
from vitdfq.synthesis import Loss
from vitdfq.synthesis.losses.class_confidence import class_confidence
from vitdfq.synthesis.objective.attention_rows import attention_rows
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.saliency import center, centered_energy, last_of_stages, saliency, saliency_name


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def listen(kind, names, images=None):
    """The context of a tiny teacher whose submodules `names(facts)` were recorded."""
    images = randn(2, 3, 32, 32) if images is None else images
    return make_context(make_tiny(kind), images, {"listen": {"function": Loss(class_confidence, listens=names)}})[0]


def maps_of(kind):
    ctx = listen(kind, lambda facts: [saliency_name(site) for site in facts.sites])
    return ctx, [saliency(ctx, site) for site in ctx.sites]


@pytest.mark.parametrize(("kind", "grids"), [("vit", [4] * 3), ("deit", [4] * 3), ("swin", [16, 16, 8, 8])])
def test_maps_are_distributions_over_the_image(kind, grids):
    _, maps = maps_of(kind)
    assert [tuple(one.shape) for one in maps] == [(2, side, side) for side in grids]
    for one in maps:
        assert (one >= 0).all() and one.std() > 0
        torch.testing.assert_close(one.sum((1, 2)), torch.ones(2))


def test_class_token_map_is_the_head_mean_of_its_row_over_patches():
    ctx, maps = maps_of("deit")
    row = ctx.recorded["blocks.2.attn.class_row"][1].mean(0)[2:]  # without class and distillation token
    torch.testing.assert_close(maps[2][1], (row / row.sum()).view(4, 4), rtol=1e-4, atol=1e-6)


def test_swin_map_is_the_energy_of_the_last_norms_input():
    _, maps = maps_of("swin")
    norm_input = listen("swin", lambda facts: ["norm:input"]).recorded["norm:input"]
    energy = centered_energy(norm_input)
    torch.testing.assert_close(maps[-1], energy / energy.sum((1, 2), keepdim=True))


def test_pruned_patches_get_0():
    site = attention_sites(make_tiny("deit"))[-1]
    row = randn(1, 2, 2 + 3).softmax(-1)
    result = SimpleNamespace(recorded={saliency_name(site): row})
    saliency_map = saliency(result, site, torch.tensor([[1, 6, 15]]))[0].flatten()
    torch.testing.assert_close(saliency_map[[1, 6, 15]], row[0, :, 2:].mean(0) / row[0, :, 2:].mean(0).sum())
    assert saliency_map.sum().item() == pytest.approx(1) and saliency_map[0] < 1e-6


def test_centered_energy_ignores_a_vector_shared_by_all_tokens():
    tokens, common = randn(1, 4, 4, 8).double(), 10 * randn(8).double()
    torch.testing.assert_close(centered_energy(tokens + common), centered_energy(tokens))
    assert (tokens + common).square().mean(-1).std() / (tokens + common).square().mean() < 0.5
    by_hand = (tokens[0, 1, 2] - tokens[0].flatten(0, 1).mean(0)).square().mean()
    assert centered_energy(tokens)[0, 1, 2].item() == pytest.approx(by_hand.item())


def test_flat_tokens_give_a_flat_map_with_a_finite_gradient():
    tokens = torch.ones(1, 8, 8, 4, requires_grad=True)
    site = attention_sites(make_tiny("swin"))[-1]
    saliency_map = saliency(SimpleNamespace(recorded={saliency_name(site): tokens}), site)
    torch.testing.assert_close(saliency_map, torch.full((1, 8, 8), 1 / 64))
    saliency_map[0, 0, 0].backward()
    assert tokens.grad.isfinite().all()


def test_attention_averaged_over_queries_gives_every_swin_window_the_same_mass():
    """The reason why the map of Swin is not made of attention."""
    ctx = listen("swin", lambda facts: [f"{site.name}.softmax" for site in facts.sites])
    for site in ctx.sites:
        mass = attention_rows(ctx.recorded, site).sum(-1)  # (B, windows, H)
        torch.testing.assert_close(mass, torch.ones_like(mass))


@given(st.integers(2, 9), st.integers(2, 9), st.data())
def test_center_of_a_single_token_is_its_position(height, width, data):
    row, column = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    maps = torch.zeros(1, height, width)
    maps[0, row, column] = 1
    expected = [(row + 0.5) / height * 2 - 1, (column + 0.5) / width * 2 - 1]
    assert center(maps)[0].tolist() == pytest.approx(expected, abs=1e-6)
    assert center(maps.flip(2))[0].tolist() == pytest.approx([expected[0], -expected[1]], abs=1e-6)


def test_center_of_a_uniform_map_is_the_middle():
    assert center(torch.full((1, 5, 8), 1 / 40))[0].tolist() == pytest.approx([0, 0], abs=1e-6)


@given(st.integers(-30, 30), st.booleans(), st.integers(0, 10**6))
def test_center_is_that_of_the_unjittered_image(offset, flip, seed):
    maps = torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(seed))
    maps = maps / maps.sum((1, 2), keepdim=True)
    jittered = Jitter(offset, flip)(maps[:, None])[:, 0]  # one token a pixel, so that the shift is exact; it wraps
    torch.testing.assert_close(center(jittered, offset, flip, (16, 16)), center(maps), rtol=0, atol=1e-5)


def test_center_after_a_shift_smaller_than_a_token():
    maps = torch.zeros(1, 4, 4)
    maps[0, 2, 1] = 1
    moved = center(maps, 3, False, (32, 32))[0].tolist()
    assert moved == pytest.approx([0.25 - 6 / 32, -0.25 - 6 / 32])


def test_last_of_stages():
    names = {kind: [site.name for site in last_of_stages(attention_sites(make_tiny(kind)))] for kind in ("vit", "swin")}
    assert names["swin"] == ["layers.0.blocks.1.attn", "layers.1.blocks.1.attn"]
    assert names["vit"] == ["blocks.0.attn", "blocks.1.attn", "blocks.2.attn"]
