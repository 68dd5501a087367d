"""Every opened architecture computes what timm computes, and a small error in the attention would be noticed."""

import copy

import pytest
import timm
import torch
from architectures import ARCHITECTURES, difference, randomized, some_images
from tiny import TINY
from torch import nn

from vitdfq.models import attention_sites, open_model, record, units
from vitdfq.models.any_timm import is_watched


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request) -> tuple[nn.Module, nn.Module]:
    """(timm's model, an opened copy of it)."""
    plain = randomized(request.param)
    opened = copy.deepcopy(plain)
    open_model(opened)
    return plain, opened


def places(model: nn.Module, place: str) -> list[str]:
    return [f"{site.name}.{place}" for site in attention_sites(model)]


def test_equals_timm_when_fused(pair):
    assert difference(*pair) < 1e-9


@pytest.mark.parametrize("place", ["qk", "softmax", "av"])
def test_equals_timm_when_hooked(pair, place):
    with record(pair[1], places(pair[1], place)) as outputs:
        assert difference(*pair) < 1e-9
    assert outputs.keys() == set(places(pair[1], place))


@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "hooked"])
def test_a_wrong_scale_would_be_noticed(pair, hooked):
    plain, wrong = pair[0], copy.deepcopy(pair[1])
    if is_watched(wrong):
        pytest.skip("the scale is part of what was watched; tests/models/test_any.py changes products")
    for site in attention_sites(wrong):
        wrong.get_submodule(site.name).scale *= 1.1
    with record(wrong, places(wrong, "softmax") if hooked else []):
        assert difference(plain, wrong) > 1e-3


def direct_parameters(model: nn.Module) -> list[list[str]]:
    """Of each attention, the parameters that are in none of its layers: biases by distance, learned queries."""
    attentions = [model.get_submodule(site.name) for site in attention_sites(model)]
    return [[name for name, _ in attention.named_parameters(recurse=False)] for attention in attentions]


@pytest.mark.parametrize("hooked", [False, True], ids=["fused", "hooked"])
def test_missing_biases_would_be_noticed(pair, hooked):
    of_sites = direct_parameters(pair[1])
    if not any(of_sites):
        pytest.skip("all its parameters are in layers")
    for name in {name for names in of_sites for name in names}:
        wrong = copy.deepcopy(pair[1])
        for site, names in zip(attention_sites(wrong), of_sites, strict=True):
            if name in names:
                wrong.get_submodule(site.name).get_parameter(name).zero_()
        with record(wrong, places(wrong, "softmax") if hooked else []):
            assert difference(pair[0], wrong) > 1e-3


def test_these_have_biases():
    kinds = [kind for kind, (name, arguments) in TINY.items() if all(direct_parameters(opened_tiny(name, arguments)))]
    assert {"swin", "levit", "eva", "beit", "swin_v2"} <= set(kinds) and not {"vit", "deit"} & set(kinds)


def opened_tiny(name: str, arguments: dict) -> nn.Module:
    model = timm.create_model(name, **arguments)
    open_model(model)
    return model


def test_state_dict_is_timms(pair):
    plain, opened = (model.state_dict() for model in pair)
    assert list(plain) == list(opened)
    assert all(torch.equal(plain[name], opened[name]) for name in plain)


def test_opening_twice_changes_nothing(pair):
    opened = copy.deepcopy(pair[1])
    before = dict(opened.named_modules())
    open_model(opened)
    assert dict(opened.named_modules()) == before


def test_opening_keeps_the_mode(pair):
    for training in (False, True):
        model = copy.deepcopy(pair[0]).train(training)
        open_model(model)
        assert {module.training for module in model.modules()} == {training}


def test_the_units_are_the_model(pair):
    opened = pair[1]
    x = images = some_images(opened)
    for unit in units(opened):
        x = unit.forward(x)
    assert torch.equal(x, opened(images))


def test_every_submodule_with_parameters_is_in_one_unit(pair):
    opened = pair[1]
    owned = [id(module) for unit in units(opened) for top in unit.modules for module in top.modules()]
    assert len(owned) == len(set(owned))
    with_parameters = {id(module) for module in opened.modules() if list(module.parameters(recurse=False))}
    assert with_parameters - {id(opened)} <= set(owned)


def test_sites_tell_the_shapes_and_rows_sum_to_one(pair):
    opened = pair[1]
    images = some_images(opened)
    with record(opened, places(opened, "softmax")) as outputs:
        opened(images)
    sites = attention_sites(opened)
    assert [site.depth for site in sites] == sorted(site.depth for site in sites)
    for site in sites:
        maps = outputs[f"{site.name}.softmax"]
        tokens = site.num_prefix_tokens + site.grid[0] * site.grid[1]
        queries = tokens if site.query_grid is None else site.query_grid[0] * site.query_grid[1]
        assert maps.shape == (len(images) * site.num_windows, site.num_heads, queries, tokens)
        torch.testing.assert_close(maps.sum(-1), maps.new_ones(maps.shape[:-1]))


def test_the_gradient_of_an_image_depends_on_no_other(pair):
    """Beside another and alone; torch misreads some strides of a batch of one."""
    opened = pair[1]
    images = some_images(opened).requires_grad_()
    (together,) = torch.autograd.grad(opened(images)[0].square().sum(), images)
    alone = images[:1].detach().requires_grad_()
    (by_itself,) = torch.autograd.grad(opened(alone).square().sum(), alone)
    torch.testing.assert_close(by_itself[0], together[0], rtol=1e-8, atol=1e-8 * together.abs().max().item())
    assert not together[1:].any()


def test_the_class_row_is_the_first_row(pair):
    """It is computed beside the fused kernel, from the same queries, scale, gain and biases."""
    opened = pair[1]
    images = some_images(opened)
    with record(opened, places(opened, "class_row")) as rows:
        opened(images)
    with record(opened, places(opened, "softmax")) as maps:
        opened(images)
    for name in places(opened, "class_row"):
        torch.testing.assert_close(rows[name], maps[name.replace("class_row", "softmax")][..., 0, :])


@pytest.mark.parametrize("place", ["softmax", "av"])
def test_gradient_reaches_the_images(pair, place):
    opened = pair[1]
    images = some_images(opened).requires_grad_()
    with record(opened, places(opened, place)) as outputs:
        opened(images)
    sum(output.square().sum() for output in outputs.values()).backward()
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().amax(1) > 0).all()
    assert all(parameter.grad is None for parameter in opened.parameters())
