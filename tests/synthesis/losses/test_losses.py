"""Values of losses by hand or against a slow, straightforward reference."""

import dataclasses
import math

import pytest
import torch
from contexts import make_context
from tiny import make_tiny

from vitdfq.models import image_size
from vitdfq.synthesis import Loss, SynthContext, TeacherFacts
from vitdfq.synthesis.losses.attention_prior import deeper_half
from vitdfq.synthesis.losses.class_confidence import class_confidence
from vitdfq.synthesis.losses.total_variation import draw_target, total_variation
from vitdfq.synthesis.seeds import generator


def context(**fields) -> SynthContext:
    names = (field.name for field in dataclasses.fields(SynthContext) if field.default is field.default_factory)
    return SynthContext(**(dict.fromkeys(names) | {"step": 0, "steps": 1} | fields))


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_class_confidence_is_soft_cross_entropy():
    logits, targets = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[0.5, 0.5]])
    expected = -(0.5 * math.log(0.75) + 0.5 * math.log(0.25))
    assert class_confidence(context(outputs=logits, targets=targets)).item() == pytest.approx(expected)


def test_total_variation_by_hand():
    images = torch.zeros(2, 3, 2, 2)
    images[0, 1] = torch.tensor([[1.0, 2.0], [4.0, 8.0]])
    # Along rows 1 and 4, along columns 3 and 6, down the diagonals 7 and 2.
    variation = math.sqrt(1 + 16) + math.sqrt(9 + 36) + 7 + 2
    ctx = context(images=images, drawn={"total_variation": {"target": torch.tensor([30.0, 5.0])}})
    assert total_variation(ctx).tolist() == pytest.approx([30 - variation, 5.0])


@pytest.mark.parametrize("size", [(224, 224), (28, 28), (56, 224)])
def test_total_variation_target_grows_with_the_side(size):
    facts = TeacherFacts(size, 10, [], torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1))
    scale = math.sqrt(size[0] * size[1]) / 224
    targets = [draw_target(generator(seed), facts)["target"].item() / scale for seed in range(50)]
    assert 442 <= min(targets) < 460 and 512 < max(targets) <= 530


@pytest.mark.parametrize("kind", ["vit", "deit", "swin", "levit"])
def test_patch_similarity_against_a_slow_reference(kind):
    # In double precision: the tokens of a random teacher are so alike that float32 rounds their similarities.
    ctx, (term,) = make_context(make_tiny(kind).double(), randn(2, 3, 32, 32).double(), {"patch_similarity": {}})
    expected = [-sum(slow_entropy(ctx, site, image) for site in ctx.sites) for image in range(2)]
    assert term.value(ctx).tolist() == pytest.approx(expected, rel=1e-6)


def slow_entropy(ctx, site, image):
    windows = ctx.recorded[f"{site.name}.av"].double()  # (B·windows, H, N, d)
    similarities = []
    for window in range(image * site.num_windows, (image + 1) * site.num_windows):
        tokens = list(windows[window].mean(0)[site.num_prefix_tokens :])
        similarities += [torch.cosine_similarity(a, b, dim=0).item() for a in tokens for b in tokens]
    s, h = torch.tensor(similarities, dtype=torch.float64), 0.01
    least, greatest = s.min().item(), s.max().item()
    points = [least + (greatest - least) * j / 9 for j in range(10)]
    density = [torch.exp(-((x - s) ** 2) / (2 * h * h)).mean().item() / math.sqrt(2 * math.pi * h * h) for x in points]
    integrand = [-(p + 1e-4) * math.log(p + 1e-4) for p in density]
    return sum((points[j + 1] - points[j]) * (integrand[j] + integrand[j + 1]) / 2 for j in range(9))


def slow_attention_prior(ctx, image, query):
    """Sum over the deeper blocks of (i+1)/L times the mean over windows, heads and tokens of squared differences."""
    total, num_blocks = 0.0, len(ctx.sites)
    for i, site in enumerate(ctx.sites):
        if i < num_blocks // 2:
            continue
        maps = ctx.recorded[f"{site.name}.softmax"][image * site.num_windows : (image + 1) * site.num_windows]
        differences = [
            (query(maps[window, head]) - ctx.drawn["attention_prior"][site.name][image, window, head]).square().mean()
            for window in range(site.num_windows)
            for head in range(site.num_heads)
        ]
        total += (i + 1) / num_blocks * torch.stack(differences).mean().item()
    return total


@pytest.mark.parametrize(
    ("kind", "query", "options"),
    [
        ("vit", lambda m: m[0], {}),
        ("vit", lambda m: m[0], {"every_query": True}),  # the class token's is the only query
        ("deit", lambda m: m[0], {}),
        ("swin", lambda m: m.mean(0), {}),
        ("swin", lambda m: m, {"every_query": True}),
        ("levit", lambda m: m.mean(0), {}),
        ("levit", lambda m: m, {"every_query": True}),
    ],
)
def test_attention_prior_against_a_slow_reference(kind, query, options):
    maps = Loss(class_confidence, listens=lambda facts: [f"{site.name}.softmax" for site in facts.sites])
    # The loss itself records a single row beside fused attention.
    losses = {"attention_prior": options, "maps": {"function": maps}}
    ctx, (term, _) = make_context(make_tiny(kind), randn(2, 3, 32, 32), losses)
    expected = [slow_attention_prior(ctx, image, query) for image in range(2)]
    assert term.value(ctx).tolist() == pytest.approx(expected, rel=1e-4)


def test_attention_prior_is_0_where_attention_equals_it():
    ctx, (term,) = make_context(make_tiny("deit"), randn(2, 3, 32, 32), {"attention_prior": {}})
    for site in deeper_half(ctx.sites):
        ctx.recorded[f"{site.name}.class_row"] = ctx.drawn["attention_prior"][site.name][:, 0]  # (B, H, N)
    assert term.value(ctx).tolist() == [0, 0]


def test_attention_prior_without_cls_ignores_the_mass_on_prefix_tokens():
    losses = {"attention_prior": {"include_cls": False}}
    ctx, (term,) = make_context(make_tiny("deit"), randn(2, 3, 32, 32), losses)
    assert (term.value(ctx) > 0).all()
    for site in deeper_half(ctx.sites):
        patches = ctx.drawn["attention_prior"][site.name][:, 0, :, 2:]
        patches = 0.3 * patches / patches.sum(-1, keepdim=True)
        prefix = torch.full_like(patches[..., :2], 0.35)
        ctx.recorded[f"{site.name}.class_row"] = torch.cat([prefix, patches], dim=-1)
    torch.testing.assert_close(term.value(ctx), torch.zeros(2), rtol=0, atol=1e-12)


def test_attention_prior_reads_the_deeper_half():
    teacher = make_tiny("vit")  # three blocks
    assert [site.depth for site in deeper_half(TeacherFacts.of(teacher).sites)] == [1, 2]
    ctx, _ = make_context(teacher, randn(1, 3, *image_size(teacher)), {"attention_prior": {}})
    assert sorted(ctx.recorded) == ["blocks.1.attn.class_row", "blocks.2.attn.class_row"]
