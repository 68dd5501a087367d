"""Norms and the linear layers that read them: complete, and a change of a norm's affine can be undone there exactly."""

import re

import pytest
import timm
import torch
from timm.layers.attention import Attention
from timm.layers.mlp import SwiGLU
from timm.models.vision_transformer import ResPostBlock
from torch import nn

from vitdfq.models import image_size, norm_readers, open_model
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize


class Gated:
    """timm wants a class to build attentions of; each is a plain Attention with a gate."""

    def __new__(cls, *args, **kwargs):
        return Attention(*args, gated=True, **kwargs)


VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"patch_size": 2, "embed_dim": 16, "depths": [1, 2], "num_heads": [2, 4]}
BLOCK = {"norm1": ("attn.qkv",), "norm2": ("mlp.fc1",)}
MODELS = {  # name, arguments, what is read in a block, what the heads read
    "class token": ("vit_tiny_patch16_224", {}, BLOCK, {"norm": ("head",)}),
    "average": ("vit_tiny_patch16_224", {"global_pool": "avg"}, BLOCK, {"fc_norm": ("head",)}),
    "norm, then average": ("vit_tiny_patch16_224", {"global_pool": "avg", "fc_norm": False}, BLOCK, {"norm": ("head",)}),
    "norm, then maximum": ("vit_tiny_patch16_224", {"global_pool": "max", "fc_norm": False}, BLOCK, {"norm": ("head",)}),
    "no last norm": ("vit_tiny_patch16_224", {"final_norm": False}, BLOCK, {}),
    "two heads": ("deit_tiny_distilled_patch16_224", {}, BLOCK, {"norm": ("head", "head_dist")}),
    "two heads, fc_norm idle": ("deit_tiny_distilled_patch16_224", {"fc_norm": True}, BLOCK, {}),
    "LayerScale": ("vit_small_patch14_dinov2", {}, BLOCK, {"norm": ("head",)}),
    "norms of q and k": ("vit_tiny_patch16_224", {"qk_norm": True}, BLOCK, {"norm": ("head",)}),
    "norm in front": ("vit_tiny_patch16_224", {"pre_norm": True}, BLOCK, {"norm": ("head",)}),
    "RMS": ("vit_tiny_patch16_224", {"norm_layer": "rmsnorm"}, BLOCK, {"norm": ("head",)}),
    "inner norms": (
        "vit_tiny_patch16_224",
        {"scale_attn_norm": True, "scale_mlp_norm": True},
        {"norm1": ("attn.qkv",), "attn.norm": ("attn.proj",), "norm2": ("mlp.fc1",), "mlp.norm": ("mlp.fc2",)},
        {"norm": ("head",)},
    ),
    "SwiGLU": (
        "vit_tiny_patch16_224",
        {"mlp_layer": SwiGLU},
        {"norm1": ("attn.qkv",), "norm2": ("mlp.fc1_g", "mlp.fc1_x")},
        {"norm": ("head",)},
    ),
    "gate": (
        "vit_tiny_patch16_224",
        {"attn_layer": Gated, "scale_attn_norm": True},
        {"norm1": ("attn.qkv", "attn.gate"), "norm2": ("mlp.fc1",)},
        {"norm": ("head",)},
    ),
    "norms after": ("vit_tiny_patch16_224", {"block_fn": ResPostBlock}, {}, {"norm": ("head",)}),
    "pooled by attention": (
        "vit_tiny_patch16_224",
        {"global_pool": "map"},
        BLOCK,
        {"norm": ("attn_pool.kv",), "attn_pool.norm": ("attn_pool.mlp.fc1",)},
    ),
    "pooled by attention, then fc_norm": (
        "vit_tiny_patch16_224",
        {"global_pool": "map", "fc_norm": True},
        BLOCK,
        {"attn_pool.norm": ("attn_pool.mlp.fc1",), "fc_norm": ("head",)},
    ),
    "parallel": (
        "vit_small_patch16_18x2_224",
        {},
        {
            "attns.0.norm": ("attns.0.attn.qkv",),
            "attns.1.norm": ("attns.1.attn.qkv",),
            "ffns.0.norm": ("ffns.0.mlp.fc1",),
            "ffns.1.norm": ("ffns.1.mlp.fc1",),
        },
        {"norm": ("head",)},
    ),
}


def opened(name: str, **arguments) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **arguments).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    open_model(model)
    return model.double()


def assert_undone(model: nn.Module, size: tuple[int, int]) -> None:
    """Scale and shift what every norm writes, undo it in the readers; the model must not notice."""
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    expected = model(images)
    for site in norm_readers(model):
        norm = model.get_submodule(site.norm)
        scale, shift = torch.rand(len(norm.weight)).double() + 0.5, torch.randn(len(norm.weight)).double()
        norm.weight.mul_(scale)
        if getattr(norm, "bias", None) is None or not site.shifts:
            shift.zero_()
        if getattr(norm, "bias", None) is not None:
            norm.bias.copy_(norm.bias * scale + shift)
        for name in site.readers:
            reader = model.get_submodule(name)
            reader.weight.div_(scale)
            bias = -reader.weight @ shift + (0 if reader.bias is None else reader.bias)
            reader.bias = nn.Parameter(bias, requires_grad=False)
    torch.testing.assert_close(model(images), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", MODELS)
def test_vit(kind):
    name, arguments, block, last = MODELS[kind]
    try:
        model = opened(name, **VIT | arguments)
    except TypeError:
        assert kind == "gate"
        pytest.skip("this timm has no gated attention")
    sites = {site.norm: site.readers for site in norm_readers(model)}
    blocks = {
        f"blocks.{i}.{norm}": tuple(f"blocks.{i}.{reader}" for reader in readers)
        for i in range(2)
        for norm, readers in block.items()
    }
    assert list(sites.items()) == list((blocks | last).items())
    assert_undone(model, (32, 32))


@pytest.mark.parametrize(
    ("size", "window", "padded"),
    [(32, 4, []), (24, 8, [0]), (20, 4, [0, 1])],  # 12 x 12 patches in windows of 8, then 6 x 6 in one; 10 x 10, 5 x 5 in 4
)
def test_swin(size, window, padded):
    model = opened("swin_tiny_patch4_window7_224", img_size=size, window_size=window, **SWIN)
    sites = norm_readers(model)
    assert [site.norm for site in sites] == [
        "layers.0.blocks.0.norm1",
        "layers.0.blocks.0.norm2",
        "layers.1.downsample.norm",
        "layers.1.blocks.0.norm1",
        "layers.1.blocks.0.norm2",
        "layers.1.blocks.1.norm1",
        "layers.1.blocks.1.norm2",
        "norm",
    ]
    readers = {"norm1": "attn.qkv", "norm2": "mlp.fc1", "downsample.norm": "downsample.reduction", "norm": "head.fc"}
    for site in sites:
        kind = re.search(r"(norm1|norm2|downsample\.norm|norm)$", site.norm)[0]
        assert site.readers == (site.norm.removesuffix(kind) + readers[kind],)
        assert site.shifts == (kind != "norm1" or int(site.norm.split(".")[1]) not in padded)
    assert_undone(model, (size, size))


def test_a_swin_of_any_size_may_pad_anywhere():
    model = opened("swin_tiny_patch4_window7_224", img_size=32, window_size=4, strict_img_size=False, **SWIN)
    assert [site.shifts for site in norm_readers(model)] == [not site.norm.endswith("norm1") for site in norm_readers(model)]
    assert_undone(model, (44, 36))


def test_doubled_channels_at_the_head_are_left_out():
    model = opened("swin_tiny_patch4_window7_224", img_size=32, window_size=4, global_pool="catavgmax", **SWIN)
    assert "norm" not in [site.norm for site in norm_readers(model)]


def test_a_change_of_each_norm_is_undone_in_its_readers(teacher):
    assert_undone(teacher.double(), image_size(teacher))


def test_a_student_has_the_names_of_its_teacher(teacher):
    assert norm_readers(quantize(teacher)) == norm_readers(teacher)


def test_a_transform_in_the_mlp_is_no_norm(tiny_vit):
    assert norm_readers(prepare(tiny_vit, steps=["rotate_mlp"])) == norm_readers(tiny_vit)
