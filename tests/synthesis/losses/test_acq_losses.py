"""ACQ-style losses: attention centers, dissimilar pairs, and consistency of training and evaluation mode."""

import dataclasses
from types import SimpleNamespace

import pytest
import timm
import torch
from contexts import make_context
from hypothesis import given
from hypothesis import strategies as st
from tiny import TINY, make_tiny
from torch import nn

from vitdfq.models import load_teacher
from vitdfq.synthesis import METHODS, TeacherFacts, synthesize
from vitdfq.synthesis.losses.attention_center import attention_center, draw_center
from vitdfq.synthesis.losses.mode_consistency import stochastic_passes
from vitdfq.synthesis.losses.pair_distance import hinge, last_saliency, partners, ratio
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.saliency import center, saliency
from vitdfq.synthesis.objective.stochastic_depth import batch_statistics, drop_rates, dropped_paths
from vitdfq.synthesis.objective.weighted_losses import resolve_losses
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.views import draw_views

KINDS = ("vit", "deit", "swin")


def randn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hooks(model):
    return [module for module in model.modules() if module._forward_hooks or module._forward_pre_hooks]


class TestAttentionCenter:
    def context(self, kind="deit", images=None):
        images = randn(3, 3, 32, 32) if images is None else images
        return make_context(make_tiny(kind), images, {"attention_center": {}})[0]

    def test_targets_are_within_reach_and_differ_by_view(self):
        places = torch.stack([draw_center(generator(seed), None)["center"] for seed in range(200)])
        assert -0.4 <= places.min() < -0.38 and 0.38 < places.max() <= 0.4
        ctx = self.context()
        assert len({tuple(row) for row in ctx.drawn["attention_center"]["center"].tolist()}) == 3

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_the_squared_distance_to_the_target(self, kind):
        ctx = self.context(kind)
        attended = center(saliency(ctx, ctx.sites[-1]))
        for move, expected in (([0.0, 0.0], 0.0), ([0.3, -0.4], 0.25)):
            at = dataclasses.replace(ctx, drawn={"attention_center": {"center": attended + torch.tensor(move)}})
            assert attention_center(at).tolist() == pytest.approx([expected] * 3, abs=1e-6)

    def test_is_0_for_crops(self):
        ctx = dataclasses.replace(self.context(), places=[0, 1, 2])
        assert attention_center(ctx)[0] > 0 and attention_center(ctx)[1:].tolist() == [0, 0]

    def test_descent_moves_mass_towards_the_target(self):
        maps = randn(1, 14, 14).softmax(1).div(14).requires_grad_()
        goal = torch.tensor([0.3, -0.2])
        (center(maps)[0] - goal).square().sum().backward()
        towards = goal - center(maps.detach())[0]
        y, x = torch.meshgrid(*[torch.linspace(-1, 1, 14)] * 2, indexing="ij")
        projection = y * towards[0] + x * towards[1]
        correlation = torch.corrcoef(torch.stack([-maps.grad.flatten(), projection.flatten()]))[0, 1]
        assert correlation > 0.999

    @pytest.mark.parametrize("jitter", [Jitter(0, True), Jitter(8, False), Jitter(-16, True)])
    def test_the_target_moves_with_the_jitter(self, jitter):
        """Rolled by whole tokens and flipped, a map centered on the target stays centered on it."""
        ctx = self.context("vit")
        row = ctx.recorded["blocks.2.attn.class_row"]
        moved = jitter(row[..., 1:].unflatten(-1, (4, 4)).repeat_interleave(8, 2).repeat_interleave(8, 3))[:, :, ::8, ::8]
        moved_row = torch.cat([row[..., :1], moved.flatten(2)], -1)
        jittered = dataclasses.replace(ctx, recorded={"blocks.2.attn.class_row": moved_row}, jitter=jitter)
        torch.testing.assert_close(attention_center(jittered), attention_center(ctx))
        still = dataclasses.replace(jittered, jitter=Jitter(0, False))
        assert not torch.allclose(attention_center(still), attention_center(ctx), atol=1e-4)


class TestPairDistance:
    def test_hinge_is_the_margin_for_identical_and_0_for_orthogonal_vectors(self):
        one = torch.tensor([[1.0, 2.0], [1.0, 0.0]])
        assert hinge(one, one, 0.5).tolist() == pytest.approx([0.5, 0.5])
        assert hinge(one[1:], torch.tensor([[0.0, 3.0]]), 1.0).item() == 0

    @given(st.floats(0, 10), st.floats(1e-2, 10), st.floats(1e-3, 1))
    def test_ratio_is_bounded_and_falls_with_distance(self, distance, codes, epsilon):
        value = ratio(torch.tensor(distance), torch.tensor(codes), epsilon)
        assert value <= 1 / epsilon + 1e-3
        assert ratio(torch.tensor(0.0), torch.tensor(codes), epsilon).item() == pytest.approx(1 / epsilon)
        assert ratio(torch.tensor(distance + 1), torch.tensor(codes), epsilon) < value

    def test_partners_are_views_of_the_same_place_in_a_pair(self):
        ctx = SimpleNamespace(indices=[2, 3, 3, 5, 6, 7], places=[0, 0, 1, 0, 1, 1], images=torch.zeros(6))
        rows, has_partner = partners(ctx)
        assert rows.tolist() == [1, 0, 2, 3, 5, 4] and has_partner.tolist() == [True, True, False, False, True, True]

    @pytest.mark.parametrize("options", [{}, {"of": "features"}, {"form": "ratio"}])
    def test_partners_get_the_same_value_and_a_single_image_0(self, options):
        ctx, (term,) = make_context(make_tiny("deit"), randn(3, 3, 32, 32), {"pair_distance": options})
        first, second, alone = term.value(ctx).tolist()
        assert first == pytest.approx(second) and first > 0 and alone == 0

    def test_identical_partners_have_the_greatest_value(self):
        images = randn(1, 3, 32, 32).expand(2, -1, -1, -1)
        for options, most in (({}, 0.5), ({"form": "ratio"}, 100)):
            ctx, (term,) = make_context(make_tiny("swin"), images, {"pair_distance": options})
            assert term.value(ctx).tolist() == pytest.approx([most] * 2, rel=1e-4)

    def test_distances_of_saliency_do_not_shrink_with_the_number_of_patches(self):
        ctx, _ = make_context(make_tiny("vit"), randn(2, 3, 32, 32), {"pair_distance": {"form": "ratio"}})
        assert last_saliency(ctx).mean(1).tolist() == pytest.approx([1, 1])

    def test_ratio_is_relative_to_the_distance_of_the_codes(self):
        ctx, (term,) = make_context(make_tiny("vit"), randn(2, 3, 32, 32), {"pair_distance": {"form": "ratio", "of": "features"}})
        far = dataclasses.replace(ctx, codes=torch.tensor([[5.0, 1.0], [-1.0, 3.0]]))  # 4 apart on average
        distance = (ctx.features[0] - ctx.features[1]).abs().mean().item()
        assert term.value(far).tolist() == pytest.approx([1 / (distance / 4 + 0.01)] * 2)
        assert (term.value(far) > term.value(ctx)).all()

    def test_wrong_options_are_named(self):
        for options, message in (({"form": "hinges"}, "did you mean 'hinge'"), ({"of": "pixels"}, "unknown `of`")):
            ctx, (term,) = make_context(make_tiny("vit"), randn(2, 3, 32, 32), {"pair_distance": options})
            with pytest.raises(ValueError, match=message):
                term.value(ctx)


def with_drop_path(kind, rate):
    name, kwargs = TINY[kind]
    return load_teacher(timm.create_model(name, num_classes=10, drop_path_rate=rate, **kwargs), **kwargs, drop_path_rate=rate)


class TestStochasticPasses:
    def test_drop_rates(self):
        assert list(drop_rates(make_tiny("vit")).values()) == pytest.approx([0, 0, 0.05, 0.05, 0.1, 0.1])
        assert list(drop_rates(make_tiny("vit"), 0.4).values()) == pytest.approx([0, 0, 0.2, 0.2, 0.4, 0.4])
        assert max(drop_rates(with_drop_path("vit", 0.3)).values()) == pytest.approx(0.3)  # the rates of the model
        assert set(drop_rates(ToyHybrid()).values()) == {0}  # its BatchNorms make the difference

    def test_training_mode_changes_only_models_with_drop_path(self):
        images = randn(4, 3, 32, 32)
        for model, same in ((make_tiny("deit"), True), (with_drop_path("deit", 0.3), False), (make_tiny("swin"), False)):
            plain = model(images)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                model.train()
                model.distilled_training = False
                differ = [not torch.equal(model(images), plain) for _ in range(10)]
            assert any(differ) is not same

    def test_dropped_paths_are_0_and_the_others_are_scaled(self):
        model = make_tiny("vit")
        path = {}
        uniform = torch.tensor([[0.5] * 6, [0.1] * 6])
        with dropped_paths(model, drop_rates(model, 0.4), uniform):
            handle = model.blocks[1].drop_path1.register_forward_hook(
                lambda module, args, out: path.update(args=args[0], out=out)
            )
            model(randn(2, 3, 32, 32))
            handle.remove()
        torch.testing.assert_close(path["out"][0], path["args"][0] / 0.8)
        assert (path["out"][1] == 0).all() and not (path["args"][1] == 0).all()
        assert hooks(model) == []

    def test_hooks_and_modes_are_restored_after_an_error(self):
        for model in (make_tiny("vit"), ToyHybrid()):
            with (
                pytest.raises(RuntimeError),
                dropped_paths(model, drop_rates(model), torch.rand(1, len(drop_rates(model)))),
                batch_statistics(model),
            ):
                raise RuntimeError
            assert hooks(model) == [] and not any(module.training for module in model.modules())

    @pytest.mark.parametrize("kind", KINDS)
    def test_is_0_without_dropped_paths(self, kind):
        ctx, (term,) = make_context(make_tiny(kind), randn(2, 3, 32, 32), {"mode_consistency": {"rate": 0.0}})
        assert term.value(ctx).tolist() == pytest.approx([0, 0], abs=1e-12)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_flow_through_both_passes(self, kind):
        images = randn(2, 3, 32, 32).requires_grad_()
        ctx, (term,) = make_context(make_tiny(kind), images, {"mode_consistency": {"rate": 0.9, "draws": 4}})
        both = torch.autograd.grad(term.value(ctx).sum(), images, retain_graph=True)[0]
        still = {name: value.detach() for name, value in ctx.recorded.items()}
        one = torch.autograd.grad(term.value(dataclasses.replace(ctx, recorded=still)).sum(), images)[0]
        assert both.norm() > 0 and one.norm() > 0 and not torch.allclose(both, one)

    def test_wrong_options_are_named(self):
        for options in ({"draws": 0}, {"rate": 1.0}):
            with pytest.raises(ValueError, match="draws >= 1 and a rate from 0 to below 1"):
                make_context(make_tiny("vit"), randn(1, 3, 32, 32), {"mode_consistency": options})


class ToyHybrid(nn.Module):
    """A convolution with BatchNorm, in eval mode, with the methods of a timm model."""

    num_classes = 5

    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.drop_path = nn.Conv2d(3, 8, 4, stride=4), nn.BatchNorm2d(8), nn.Identity()
        self.head = nn.Linear(8, 5)
        with torch.no_grad():
            self.stem.weight.copy_(randn(8, 3, 4, 4) / 7)
            self.norm.running_mean.fill_(1.0)
        self.eval().requires_grad_(False)

    def forward_features(self, x):
        return self.drop_path(self.norm(self.stem(x)))

    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.head(x)


class TestBatchNorm:
    def run(self, count):
        model, images = ToyHybrid(), 2 * randn(count, 3, 16, 16) + 1
        before = {name: value.clone() for name, value in model.state_dict().items()}
        with Networks(model, ["norm"]) as networks:
            plain = networks.run(images)
            ctx = SimpleNamespace(images=images, generators=lambda purpose: [generator(0, row) for row in range(count)])
            passes = stochastic_passes(ctx, networks, draws=2)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        assert not any(module.training for module in model.modules()) and hooks(model) == []
        return plain, passes

    def test_batch_statistics_are_used_and_buffers_unchanged(self):
        plain, passes = self.run(4)
        assert plain.recorded["norm"].mean().abs() > 0.5
        for result in passes:
            mean, variance = result.recorded["norm"].mean((0, 2, 3)), result.recorded["norm"].var((0, 2, 3), correction=0)
            torch.testing.assert_close(mean, torch.zeros(8), rtol=0, atol=1e-5)
            torch.testing.assert_close(variance, torch.ones(8), rtol=0, atol=1e-3)

    def test_a_single_view_uses_the_running_statistics(self):
        plain, passes = self.run(1)
        assert all(torch.equal(result.logits, plain.logits) for result in passes)


class TestPreset:
    def test_pairs_share_class_and_target_center(self):
        facts, method = TeacherFacts.of(make_tiny("vit")), METHODS["acq"]
        views = [draw_views(index, 0, method, resolve_losses(method.losses), facts)[0] for index in range(4)]
        places = [view.drawn["attention_center"]["center"].tolist() for view in views]
        assert places[0] == places[1] != places[2] == places[3]
        assert torch.equal(views[0].target, views[1].target) and not torch.equal(views[1].target, views[2].target)

    def test_partners_become_different_images(self):
        one, other = synthesize(make_tiny("vit"), method="acq", num_images=2, steps=4)
        assert (one - other).abs().mean() > 0.1

    def test_runs_with_regions_and_with_pruning(self):
        for changes in ({"max_regions": 4}, {"prune_at": [0.3]}):
            assert synthesize(make_tiny("deit"), method="acq", num_images=4, steps=4, **changes).isfinite().all()

    @pytest.mark.integration
    def test_attention_moves_to_its_target(self):
        teacher, losses = load_teacher("zoo:vit"), {"attention_center": {}}
        alone = {name: {"weight": 0} for name in METHODS["acq"].losses} | {"attention_center": {"weight": 1.0}}
        start = synthesize(teacher, method="noise", num_images=4)
        images = synthesize(teacher, method="acq", num_images=4, steps=40, losses=alone)
        contexts = (make_context(teacher, images, losses, pairs=True) for images in (start, images))
        before, after = (term.value(ctx).mean() for ctx, (term,) in contexts)
        assert after < 0.3 * before
