"""Every opened architecture computes what timm computes, and a small error in the attention would be noticed."""

import copy

import pytest
import timm
import torch
from tiny import FEATURES, TINY, randomize_batch_norms
from torch import nn

from vitdfq.models import attention_sites, image_size, open_model, record, units

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 7}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "num_classes": 7}
TWO_STAGES = {"depths": (2, 2), "num_heads": (2, 4)}
LEVIT = {"img_size": 64, "embed_dim": (32, 48), "key_dim": 8, "depth": (2, 1), "num_heads": (2, 3), "num_classes": 7}
VARIANTS = {
    "vit_wide_images": ("vit_tiny_patch16_224", {**VIT, "img_size": (16, 40)}),
    "vit_qk_norm": ("vit_tiny_patch16_224", {**VIT, "qk_norm": True}),
    "vit_scaled": ("vit_tiny_patch16_224", {**VIT, "scale_attn_norm": True, "scale_mlp_norm": True}),
    "vit_average_with_class_token": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg"}),
    "vit_no_embed_class": ("vit_tiny_patch16_224", {**VIT, "no_embed_class": True}),
    "vit_registers": ("vit_base_patch16_reg4_gap_256", VIT),
    "vit_clip": ("vit_base_patch32_clip_224", VIT),
    "vit_siglip": ("vit_base_patch16_siglip_224", VIT),
    "vit_map_fc_norm": ("vit_tiny_patch16_224", {**VIT, "global_pool": "map", "fc_norm": True, "norm_layer": "rmsnorm"}),
    "vit_siglip_gap": ("vit_base_patch16_siglip_gap_224", VIT),
    "vit_post_norm": ("vit_base_patch16_rpn_224", VIT),
    "vit_parallel": ("vit_small_patch16_18x2_224", VIT),
    "deit_one_head": ("deit_tiny_patch16_224", VIT),
    "deit3": ("deit3_small_patch16_224", VIT),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", VIT),
    "dinov2_swiglu": ("vit_giant_patch14_dinov2", VIT),
    "swin_wide_images": ("swin_tiny_patch4_window7_224", {**SWIN, **TWO_STAGES, "img_size": (16, 48)}),
    "swin_padded": ("swin_tiny_patch4_window7_224", {**SWIN, **TWO_STAGES, "img_size": (36, 20)}),
    "swin_deep": (
        "swin_small_patch4_window7_224",
        {**SWIN, "img_size": 64, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8)},
    ),
    "swin_s3": ("swin_s3_tiny_224", {**SWIN, **TWO_STAGES}),
    "levit_distilled": ("levit_128s", LEVIT),
    "levit_one_head": ("levit_512_s8", {**LEVIT, "img_size": 32}),
    "levit_odd_grid": ("levit_128s", {**LEVIT, "img_size": (80, 48)}),  # 5 x 3 tokens, then 3 x 2
}
ARCHITECTURES = {kind: (name, {**arguments, "num_classes": 7}) for kind, (name, arguments) in TINY.items()} | VARIANTS | FEATURES


def randomize(model: nn.Module) -> None:
    """Let every parameter matter to the logits: timm's zeros, ones and 1e-6 would hide a wrong attention."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:  # norms, LayerScale gammas, biases
                parameter.copy_(noise * 0.3 + (0.0 if name.endswith("bias") else 1.0))
            elif name.endswith(("weight",)):
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:  # position embeddings, class, distillation and register tokens, relative position bias tables
                parameter.copy_(noise)
        randomize_batch_norms(model, some_images(model), generator)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(request) -> tuple[nn.Module, nn.Module]:
    """(timm's model, an opened copy of it)."""
    name, arguments = ARCHITECTURES[request.param]
    plain = timm.create_model(name, **arguments).eval().requires_grad_(False).double()  # rounding differs between machines
    randomize(plain)
    opened = copy.deepcopy(plain)
    open_model(opened)
    return plain, opened


def some_images(model: nn.Module) -> torch.Tensor:
    return torch.randn(3, 3, *image_size(model), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def difference(plain: nn.Module, opened: nn.Module) -> float:
    """The largest difference of the logits, relative to the largest logit."""
    images = some_images(plain)
    expected = plain(images)
    return float((opened(images) - expected).abs().max() / expected.abs().max())


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
    names = {name for names in direct_parameters(pair[1]) for name in names}
    if not names:
        pytest.skip("all its parameters are in layers")
    for name in names:
        wrong = copy.deepcopy(pair[1])
        for site in attention_sites(wrong):
            attention = wrong.get_submodule(site.name)
            if name in dict(attention.named_parameters(recurse=False)):
                attention.get_parameter(name).zero_()
        with record(wrong, places(wrong, "softmax") if hooked else []):
            assert difference(pair[0], wrong) > 1e-3


def test_swin_and_levit_have_biases():
    kinds = [kind for kind, (name, arguments) in TINY.items() if all(direct_parameters(opened_tiny(name, arguments)))]
    assert {"swin", "levit"} <= set(kinds) and not {"vit", "deit"} & set(kinds)


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
