"""Losses on statistics of pixels and norms: values by hand, by autograd, and invariances."""

import pytest
import timm
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny
from torch import nn

from vitdfq.synthesis import LOSSES, SynthContext, TeacherFacts, synthesize
from vitdfq.synthesis.losses.batch_norm_statistics import batch_norm_statistics
from vitdfq.synthesis.losses.input_statistics import input_statistics
from vitdfq.synthesis.losses.norm_statistics import norm_statistics, token_norms
from vitdfq.synthesis.losses.statistics_prior import statistics_prior
from vitdfq.synthesis.objective.channel_moments import FORMS, Moments, kl, moments, mse, standard
from vitdfq.synthesis.objective.networks import Networks

BATCH_NORMS = (nn.modules.batchnorm._BatchNorm,)


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Hybrid(nn.Module):
    """A convolution with a two-dimensional norm, then tokens with a one-dimensional one and a LayerNorm."""

    num_classes = 5

    def __init__(self):
        super().__init__()
        self.conv, self.norm2d = nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8)
        self.norm1d, self.norm, self.head = nn.BatchNorm1d(8), nn.LayerNorm(8), nn.Linear(8, 5)

    def forward_features(self, x):
        tokens = self.norm2d(self.conv(x)).relu().flatten(2).mT  # (B, N, 8)
        return self.norm(self.norm1d(tokens.flatten(0, 1)).view_as(tokens))

    def forward_head(self, tokens, pre_logits=False):
        return tokens.mean(1) if pre_logits else self.head(tokens.mean(1))


def hybrid():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Hybrid().eval().requires_grad_(False)


def facts_of(model, norms=(nn.LayerNorm, *BATCH_NORMS), sites=()):
    selected = {name: part for name, part in model.named_modules() if isinstance(part, norms)}
    return TeacherFacts((32, 32), 5, list(sites), -torch.ones(1, 3, 1, 1), torch.ones(1, 3, 1, 1), selected)


def context_of(model, images, name, facts=None):
    """The context as an engine makes it, for a model of no family."""
    facts = facts or facts_of(model)
    with Networks(model, LOSSES[name].listens(facts)) as networks:
        return given_context(facts, **vars(networks.run(images)))


def given_context(facts, images, outputs=None, features=None, recorded=None, has_classes=True):
    count = len(images)
    recorded = recorded or {}
    return SynthContext(images, outputs, features, recorded, None, facts, {}, list(range(count)), [0] * count, 0, 1)


positive = st.floats(0.1, 5)


class TestForms:
    @pytest.mark.parametrize("form", FORMS)
    def test_zero_at_equal_moments_and_positive_elsewhere(self, form):
        measured = Moments(randn(6), randn(6).exp())
        assert FORMS[form](measured, measured).item() == pytest.approx(0, abs=1e-6)
        assert FORMS[form](Moments(measured.mean + 1, measured.variance), measured) > 0.01
        assert FORMS[form](Moments(measured.mean, measured.variance * 2), measured) > 0.01

    def test_by_hand(self):
        measured, target = Moments(torch.tensor([1.0, 0]), torch.tensor([4.0, 1])), Moments(torch.zeros(2), torch.ones(2))
        assert FORMS["mse"](measured, target).item() == pytest.approx((1 + 9) / 2)
        assert FORMS["l2"](measured, target).item() == pytest.approx(1 + 3)
        assert FORMS["kl"](measured, target).item() == pytest.approx(0.5 * (-1.386294 + 4 + 1 - 1) / 2, abs=1e-4)

    @given(mean=st.floats(-3, 3), variance=positive, target_mean=st.floats(-3, 3), target_variance=positive)
    def test_gradient_of_kl_in_the_mean(self, mean, variance, target_mean, target_variance):
        measured = torch.tensor([mean, 0.0]).requires_grad_()
        target = Moments(torch.tensor([target_mean, 0.0]), torch.tensor([target_variance, 1.0]))
        kl(Moments(measured, torch.tensor([variance, 1.0])), target).backward()
        assert measured.grad[0].item() == pytest.approx((mean - target_mean) / target_variance / 2, rel=1e-3, abs=1e-3)

    @given(scale=st.floats(0.5, 20))
    def test_kl_is_invariant_to_the_scale_of_a_channel_and_mse_is_not(self, scale):
        measured, target = Moments(randn(4), randn(4).exp()), Moments(randn(4, seed=2), randn(4, seed=2).exp())
        scaled = [Moments(pair.mean * scale, pair.variance * scale**2) for pair in (measured, target)]
        assert kl(*scaled).item() == pytest.approx(kl(measured, target).item(), rel=1e-3)
        if not 0.9 < scale < 1.1:
            assert mse(*scaled).item() != pytest.approx(mse(measured, target).item(), rel=0.05)

    @pytest.mark.parametrize(("shape", "channel"), [((4, 3, 5, 5), 1), ((20, 3), 1), ((4, 6, 3), -1), ((4, 2, 6, 3), -1)])
    def test_moments_are_those_of_each_channel(self, shape, channel):
        values = randn(*shape)
        rows = values.movedim(channel, 0).flatten(1)
        torch.testing.assert_close(moments(values, channel).mean, rows.mean(1))
        torch.testing.assert_close(moments(values, channel).variance, rows.var(1, correction=0))


class TestInputStatistics:
    def test_by_hand(self):
        images = torch.zeros(2, 3, 2, 2)
        images[0, 0], images[1, 0] = 3.0, 1.0  # mean 2, standard deviation 1; the other channels 0 and 0
        assert input_statistics(given_context(facts_of(hybrid()), images)).tolist() == pytest.approx([6.0, 6.0], abs=0.02)

    def test_the_batch_is_measured_not_the_single_image(self):
        images = torch.stack([torch.full((3, 8, 8), 1.0), torch.full((3, 8, 8), -1.0)])
        facts = facts_of(hybrid())
        assert input_statistics(given_context(facts, images)).max() < 1e-6
        assert input_statistics(given_context(facts, images[:1])).min() > 1

    def test_optimization_lowers_it(self):
        losses = {name: {"weight": 0} for name in LOSSES} | {"input_statistics": {"weight": 1.0}}
        images = synthesize(make_tiny("vit"), num_images=4, steps=40, max_regions=1, start="dead_leaves", losses=losses)
        assert moments(images, 1).mean.abs().max() < 0.05


class TestNormStatistics:
    @staticmethod
    def value(tokens, **options):
        """Of a model whose single LayerNorm reads these tokens."""
        facts = facts_of(nn.Sequential(nn.LayerNorm(tokens.shape[-1])))
        return norm_statistics(given_context(facts, randn(len(tokens), 3, 4, 4), recorded={"0:input": tokens}), **options)

    def test_is_near_0_for_standard_normal_tokens(self):
        assert self.value(randn(16, 64, 32), hinge=0.0).max() < 0.01

    @pytest.mark.parametrize("form", FORMS)
    def test_similar_tokens_have_a_large_distance(self, form):
        alike = randn(1, 1, 32).expand(16, 64, 32)
        nearly = alike + 0.1 * randn(16, 64, 32, seed=2)
        far, less, normal = (self.value(x, form=form, hinge=0.0)[0] for x in (alike, nearly, randn(16, 64, 32)))
        assert far > less > 3 * normal
        assert far > 0.5

    def test_distances_below_the_hinge_cost_nothing(self):
        tokens = randn(1, 1, 32) + randn(16, 64, 32, seed=2)
        plain = self.value(tokens, hinge=0.0)[0].item()
        assert self.value(tokens, hinge=plain / 2)[0].item() == pytest.approx(plain / 2, rel=1e-4)
        assert self.value(tokens, hinge=2 * plain).tolist() == [0] * 16

    def test_repeating_the_batch_changes_nothing(self):
        tokens = randn(4, 16, 8)
        torch.testing.assert_close(self.value(tokens.repeat(2, 1, 1), hinge=0.0)[:4], self.value(tokens, hinge=0.0))

    def test_is_invariant_to_scale_and_shift_of_a_token(self):
        tokens = randn(4, 16, 8)
        moved = 5 * randn(4, 16, 1, seed=2).exp() * tokens + randn(4, 16, 1, seed=3)
        torch.testing.assert_close(self.value(moved, hinge=0.0), self.value(tokens, hinge=0.0), rtol=1e-3, atol=1e-5)

    def test_the_first_quarter_and_the_norms_within_attention_are_left_out(self):
        facts = TeacherFacts.of(make_tiny("vit"))  # seven norms
        assert token_norms(facts)[0] == "blocks.0.norm2:input" and token_norms(facts)[-1] == "norm:input"
        facts.norms["blocks.2.attn.q_norm"] = nn.LayerNorm(16)
        assert len(token_norms(facts)) == 6

    @pytest.mark.parametrize(("kind", "prefix"), [("vit", 1), ("deit", 2)])
    def test_prefix_tokens_are_left_out(self, kind, prefix):
        ctx, (term,) = make_context(make_tiny(kind), randn(3, 3, 32, 32), {"norm_statistics": {"hinge": 0.0}})
        before = term.value(ctx)
        for name in ctx.recorded:
            ctx.recorded[name] = ctx.recorded[name].clone()
            ctx.recorded[name][:, :prefix] = 100 * randn(1, 1, 32)
        assert torch.equal(term.value(ctx), before)
        for name in ctx.recorded:
            ctx.recorded[name][:, prefix] = 100 * randn(1, 32)
        assert not torch.equal(term.value(ctx), before)

    def test_a_model_without_layer_norm_is_refused(self):
        with pytest.raises(ValueError, match=r"needs a model with LayerNorm; batch_norm_statistics"):
            token_norms(facts_of(nn.Sequential(nn.BatchNorm2d(3))))


class TestBatchNormStatistics:
    @pytest.mark.parametrize("form", FORMS)
    def test_is_0_where_the_running_statistics_are_those_of_the_images(self, form):
        model, images = hybrid(), randn(4, 3, 32, 32)
        before = batch_norm_statistics(context_of(model, images, "batch_norm_statistics"), form=form)
        for name in ("norm2d", "norm1d"):  # in the order of the forward pass: the second reads what the first writes
            measured = moments(context_of(model, images, "batch_norm_statistics").recorded[f"{name}:input"], 1)
            norm = getattr(model, name)
            norm.running_mean, norm.running_var = measured.mean, measured.variance
        after = batch_norm_statistics(context_of(model, images, "batch_norm_statistics"), form=form)
        assert before.min() > 0.05
        assert after.shape == (4,) and after.max() < 1e-4

    def test_gradient_reaches_every_image_and_repeating_the_batch_changes_nothing(self):
        model, images = hybrid(), randn(4, 3, 32, 32).requires_grad_()
        value = batch_norm_statistics(context_of(model, images, "batch_norm_statistics"))
        value.sum().backward()
        assert (images.grad.flatten(1).norm(dim=1) > 0).all()
        twice = context_of(model, images.detach().repeat(2, 1, 1, 1), "batch_norm_statistics")
        torch.testing.assert_close(batch_norm_statistics(twice)[:4], value)

    def test_gradient_is_finite_on_flat_images(self):
        images = torch.zeros(1, 3, 32, 32, requires_grad=True)
        batch_norm_statistics(context_of(hybrid(), images, "batch_norm_statistics"), form="l2").sum().backward()
        assert images.grad.isfinite().all()

    def test_first_weight_scales_the_first_norm(self):
        ctx = context_of(hybrid(), randn(4, 3, 32, 32), "batch_norm_statistics")
        one, ten, none = (batch_norm_statistics(ctx, first_weight=weight)[0].item() for weight in (1, 10, 0))
        assert ten - one == pytest.approx(9 * (one - none), rel=1e-4)
        first = kl(moments(ctx.recorded["norm2d:input"], 1), standard(moments(ctx.recorded["norm2d:input"], 1)))
        assert one - none == pytest.approx(first.item() / 2, rel=1e-4)  # running statistics are still 0 and 1

    def test_every_batch_norm_of_a_levit_is_recorded(self):
        with torch.random.fork_rng():
            model = timm.create_model("levit_128s", num_classes=5).eval().requires_grad_(False)
        count = sum(isinstance(part, BATCH_NORMS) for part in model.modules())
        flat = sum(isinstance(part, nn.BatchNorm1d) for part in model.modules())
        images = randn(2, 3, 224, 224).requires_grad_()
        ctx = context_of(model, images, "batch_norm_statistics")
        assert len(ctx.recorded) == count > flat > 30
        values = batch_norm_statistics(ctx)
        values.sum().backward()
        assert values.isfinite().all() and images.grad.norm() > 0

    @pytest.mark.parametrize("kind", ["vit", "swin"])
    def test_a_model_without_batch_norm_is_refused(self, kind):
        losses = {"batch_norm_statistics": {"weight": 1.0}}
        with pytest.raises(ValueError, match=r"needs a model with BatchNorm; norm_statistics"):
            synthesize(make_tiny(kind), num_images=1, steps=1, losses=losses)


def test_the_prior_uses_batch_norms_where_there_are_any():
    model, images = hybrid(), randn(4, 3, 32, 32)
    both = context_of(model, images, "statistics_prior")
    assert sorted(both.recorded) == ["norm1d:input", "norm2d:input"]
    torch.testing.assert_close(statistics_prior(both, form="mse"), batch_norm_statistics(both, form="mse"))
    plain = context_of(model, images, "statistics_prior", facts_of(model, (nn.LayerNorm,)))
    assert sorted(plain.recorded) == ["norm:input"]
    torch.testing.assert_close(statistics_prior(plain, hinge=0.1), norm_statistics(plain, hinge=0.1))
