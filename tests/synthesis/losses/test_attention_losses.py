"""Losses on attention scores and smoothness, against slow references and known values."""

import dataclasses
import math

import pytest
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis.losses.attention_entropy import draw_patches
from vitdfq.synthesis.losses.head_similarity import ssim, unit_range
from vitdfq.synthesis.seeds import generator

KINDS = ("vit", "deit", "swin")


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def context(kind, name, count=2):
    return make_context(make_tiny(kind).double(), randn(count, 3, 32, 32).double(), {name: {}})


def maps_of(ctx, site, image):
    """The scores (H, n, n) of one image's windows, patches only."""
    scores = ctx.recorded[f"{site.name}.qk"][image * site.num_windows : (image + 1) * site.num_windows]
    return scores[..., site.num_prefix_tokens :, site.num_prefix_tokens :]


def slow_ssim(a, b):
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    spread = a.var(correction=0) + b.var(correction=0)
    luminance = (2 * a.mean() * b.mean() + 1e-4) / (a.mean() ** 2 + b.mean() ** 2 + 1e-4)
    return (luminance * (2 * covariance + 9e-4) / (spread + 9e-4)).item()


def mean(values):
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", KINDS)
def test_head_similarity_against_a_slow_reference(kind):
    ctx, (term,) = context(kind, "head_similarity")

    def layer(site, image):
        values = []
        for heads in maps_of(ctx, site, image):  # a window
            for query in range(heads.shape[1]):
                rows = [(row - row.min()) / (row.max() - row.min()) for row in heads[:, query]]
                values += [1 - slow_ssim(a, b) ** 2 for i, a in enumerate(rows) for b in rows[:i]]
        return mean(values)

    expected = [mean([layer(site, image) for site in ctx.sites]) for image in range(2)]
    assert term.value(ctx).tolist() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_head_similarity_is_0_for_heads_of_equal_structure(kind):
    ctx, (term,) = context(kind, "head_similarity")
    assert (term.value(ctx) > 0.05).all()
    for name, scores in ctx.recorded.items():
        scale = torch.arange(1, scores.shape[1] + 1)[:, None, None]  # scale and offset of a head do not matter
        ctx.recorded[name] = scores[:, :1] * scale + scale
    torch.testing.assert_close(term.value(ctx), torch.zeros(2).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("kind", "prefix"), [("vit", 1), ("deit", 2)])
@pytest.mark.parametrize("name", ["head_similarity", "attention_entropy"])
def test_scores_of_prefix_tokens_are_ignored(name, kind, prefix):
    ctx, (term,) = context(kind, name)
    before = term.value(ctx)
    for scores in ctx.recorded.values():
        scores[:, :, :prefix], scores[..., :prefix] = 7.0, -9.0
    assert torch.equal(term.value(ctx), before)
    for scores in ctx.recorded.values():
        scores[:, 0, prefix, prefix] += 9.0
    assert not torch.equal(term.value(ctx), before)


def test_a_model_with_single_heads_is_refused():
    ctx, (term,) = context("vit", "head_similarity")
    single = [dataclasses.replace(site, num_heads=1) for site in ctx.sites]
    with pytest.raises(ValueError, match="one head everywhere"):
        term.value(dataclasses.replace(ctx, facts=dataclasses.replace(ctx.facts, sites=single)))


@given(seed=st.integers(0, 1000), heads=st.integers(1, 5), length=st.integers(2, 50))
def test_ssim_is_symmetric_bounded_and_one_with_itself(seed, heads, length):
    rows = unit_range(randn(heads, length, seed=seed).double())
    similarity = ssim(rows)
    torch.testing.assert_close(similarity, similarity.mT)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(heads).double())
    assert similarity.abs().max() <= 1 + 1e-9
    assert similarity[0, -1].item() == pytest.approx(slow_ssim(rows[0], rows[-1]), abs=1e-9)


def test_unit_range_of_a_constant_row_is_zero():
    assert unit_range(torch.full((1, 4), 3.0)).tolist() == [[0] * 4]
    assert unit_range(torch.tensor([1.0, 2, 5])).tolist() == pytest.approx([0, 0.25, 1], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_entropy_against_a_slow_reference(kind):
    ctx, (term,) = make_context(make_tiny(kind).double(), randn(2, 3, 32, 32).double(), {"attention_entropy": {"num_patches": 5}})

    def layer(site, image):
        values = []
        for window, heads in enumerate(maps_of(ctx, site, image)):
            scores, chosen = heads.mean(0), ctx.drawn["attention_entropy"][site.name][image, window, :5]
            similarity = torch.stack([torch.cosine_similarity(scores[i], scores[j], dim=0) for i in chosen for j in chosen])
            values.append(-0.5 * math.log(2 * math.pi * math.e * similarity.var(correction=0).item()))
        return mean(values)

    expected = [mean([layer(site, image) for site in ctx.sites]) for image in range(2)]
    assert term.value(ctx).tolist() == pytest.approx(expected, rel=1e-4)


def test_identical_rows_have_the_greatest_entropy_loss():
    ctx, (term,) = context("vit", "attention_entropy")
    before = term.value(ctx)
    for name, scores in ctx.recorded.items():
        ctx.recorded[name] = scores[:, :, :1].expand_as(scores).clone()
    assert (term.value(ctx) > before + 1).all()
    assert term.value(ctx).tolist() == pytest.approx([-0.5 * math.log(2 * math.pi * math.e * 1e-8)] * 2)


@pytest.mark.parametrize(("kind", "patches"), [("vit", 16), ("swin", 16)])
def test_the_order_of_patches_is_a_permutation(kind, patches):
    facts = context(kind, "attention_entropy")[0].facts
    orders = draw_patches(generator(0), facts)
    for site in facts.sites:
        assert orders[site.name].shape == (site.num_windows, patches)
        assert (orders[site.name].sort(1).values == torch.arange(patches)).all()


def test_each_image_has_its_own_order_of_patches():
    losses = {"attention_entropy": {"num_patches": 4}}
    ctx, _ = make_context(make_tiny("vit"), randn(3, 3, 32, 32), losses)
    drawn = ctx.drawn["attention_entropy"]["blocks.0.attn"]
    assert drawn.shape == (3, 1, 16) and len(set(map(str, drawn.tolist()))) == 3
    with pytest.raises(ValueError, match="num_patches must be at least 2, got 1"):
        make_context(make_tiny("vit"), randn(1, 3, 32, 32), {"attention_entropy": {"num_patches": 1}})


def test_smoothness_by_hand():
    images = torch.zeros(2, 3, 32, 32)
    images[0, 1, :2, :2] = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    ctx, (term,) = make_context(make_tiny("vit"), images, {"smoothness": {}})
    across, down = math.sqrt(1 + 2**2 + 4**2 + 8**2), math.sqrt(3**2 + 4**2 + 6**2 + 8**2)
    diagonals = math.sqrt(7**2 + 2**2 + 4**2 + 8**2) + math.sqrt(2**2 + 8**2 + 8**2)
    assert term.value(ctx).tolist() == pytest.approx([across + down + diagonals / math.sqrt(2), 0])
