"""Random attention maps."""

import math

import pytest
import torch
from tiny import make_tiny

from vitdfq.synthesis import LOSSES, TeacherFacts
from vitdfq.synthesis.objective.attention_prior_maps import FLATTENINGS, MIXTURES, gaussian_mixture_maps
from vitdfq.synthesis.seeds import generator


def draw_maps(count=400, grid=(14, 14), **options):
    options = {"max_components": 5, "half_widths": (4, 6)} | options
    return gaussian_mixture_maps(generator(0, "test"), count, grid, **options)


def draw_priors(kind, seed=0):
    return LOSSES["attention_prior"].draw(generator(seed), TeacherFacts.of(make_tiny(kind)))


@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("flatten", FLATTENINGS)
@pytest.mark.parametrize("grid", [(14, 14), (3, 5)])
def test_maps_are_distributions(mixture, flatten, grid):
    maps = draw_maps(50, grid, mixture=mixture, flatten=flatten)
    assert maps.shape == (50, grid[0] * grid[1])
    assert (maps > 0).all()
    torch.testing.assert_close(maps.sum(1), torch.ones(50))


def test_maps_are_as_flat_as_those_of_the_derivative():
    """Measured over 4000 draws of the derivative: highest 2.26 times uniform, lowest .84 times, normalized entropy .995."""
    maps = draw_maps(2000)
    assert (maps.amax(1) * 196).mean().item() == pytest.approx(2.26, abs=0.06)
    assert (maps.amin(1) * 196).mean().item() == pytest.approx(0.84, abs=0.02)
    entropy = -(maps * maps.log()).sum(1).mean().item() / math.log(196)
    assert entropy == pytest.approx(0.995, abs=0.002)


def test_window_maps_are_as_flat_as_those_of_the_derivative():
    """Measured over 4000 draws of the derivative: highest 1.90 times uniform, lowest .78 times."""
    maps = draw_maps(4000, (7, 7), max_components=1, half_widths=(1, 2))
    assert (maps.amax(1) * 49).mean().item() == pytest.approx(1.90, abs=0.06)
    assert (maps.amin(1) * 49).mean().item() == pytest.approx(0.78, abs=0.02)


def test_raw_maps_are_sharper():
    assert (draw_maps(flatten="raw").amax(1) > draw_maps().amax(1)).all()


@pytest.mark.parametrize("mixture", MIXTURES)
def test_maps_against_a_slow_reference(mixture):
    """The same draws, one map at a time, through torch.distributions."""
    count, components, (rows, columns) = 20, 5, (6, 5)
    rng = generator(0, "test")
    num_components = torch.randint(1, components + 1, (count, 1), generator=rng)
    means = torch.rand(count, components, 2, generator=rng) * 10 - 5
    factors = torch.rand(count, components, 2, 2, generator=rng) * 10
    half_widths = torch.tensor((4, 6))[torch.randint(2, (count,), generator=rng)]
    expected = []
    for k, mean, factor, w in zip(num_components[:, 0], means, factors, half_widths, strict=True):
        points = torch.tensor([[y, x] for y in torch.linspace(-w, w, rows) for x in torch.linspace(-w, w, columns)])
        densities = []
        for j in range(k):
            variances, axes = torch.linalg.eigh((factor[j] @ factor[j].T).double())
            covariance = axes @ variances.clamp(0.05, 5).diag() @ axes.T
            normal = torch.distributions.MultivariateNormal(mean[j].double(), covariance)
            densities.append(normal.log_prob(points.double()).exp())
        values = torch.stack(densities).amax(0) if mixture == "max" else torch.stack(densities).sum(0)
        expected.append((values + 1e-9) / (values + 1e-9).sum())
    maps = draw_maps(count, (rows, columns), mixture=mixture, flatten="raw")
    torch.testing.assert_close(maps, torch.stack(expected).float(), rtol=1e-2, atol=1e-5)


def test_unknown_mixture_names_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'max'"):
        draw_maps(mixture="maxx")


@pytest.mark.parametrize("kind", ["vit", "deit", "swin", "layer_scale"])
def test_priors_sum_to_one(kind):
    teacher = make_tiny(kind)
    sites = {site.name: site for site in TeacherFacts.of(teacher).sites}
    for name, prior in draw_priors(kind).items():
        site = sites[name]
        tokens = site.num_prefix_tokens + site.grid[0] * site.grid[1]
        assert prior.shape == (site.num_windows, site.num_heads, tokens)
        torch.testing.assert_close(prior.sum(-1), torch.ones(prior.shape[:2]))


def test_prefix_tokens_have_a_uniform_share_of_the_mass():
    facts = TeacherFacts.of(make_tiny("deit"))
    priors = [LOSSES["attention_prior"].draw(generator(seed), facts)["blocks.2.attn"] for seed in range(100)]
    mass = torch.stack(priors)[..., :2].sum(-1)
    assert mass.min() < 0.05 and mass.max() > 0.95
    assert mass.mean().item() == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_priors_differ_by_block_head_and_window(kind):
    priors = draw_priors(kind)
    maps = torch.cat([prior.flatten(0, 1) for prior in priors.values()])
    uneven = maps[maps.amax(1) > 1.01 * maps.amin(1)]  # a component far off a small map makes it uniform
    assert len(priors) == 2
    assert len(uneven) > 0.7 * len(maps)
    assert len(uneven.unique(dim=0)) == len(uneven)
