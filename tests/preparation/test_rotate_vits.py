"""Every kind of ViT: rotated to the last value, turned back where something reads the stream in its own basis."""

import pytest
import timm
import torch
from timm.layers.mlp import Mlp
from torch import nn

from vitdfq.checkpoint.dequantize import plain_model
from vitdfq.models import image_size, load_teacher
from vitdfq.preparation import prepare
from vitdfq.preparation.linear import Affine
from vitdfq.preparation.prepare import ROTATIONS
from vitdfq.quantization import quantize

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 5}
NAMES = {
    "clip": ("vit_base_patch32_clip_224", {}),
    "clip, RMS": ("vit_base_patch32_clip_224", {"norm_layer": "rmsnorm"}),
    "registers": ("vit_base_patch16_reg4_gap_256", {}),
    "dinov2, registers": ("vit_small_patch14_reg4_dinov2", {}),
    "dinov2, gated MLP": ("vit_giant_patch14_dinov2", {}),
    "deit-3": ("deit3_small_patch16_224", {}),
    "two heads": ("deit_tiny_distilled_patch16_224", {}),
    "two heads, fc_norm idle": ("deit_tiny_distilled_patch16_224", {"fc_norm": True}),
    "parallel": ("vit_small_patch16_18x2_224", {}),
    "norms after": ("vit_base_patch16_rpn_224", {}),
    "siglip": ("vit_base_patch16_siglip_224", {}),
    "siglip, gap": ("vit_base_patch16_siglip_gap_224", {}),
    "aimv2": ("aimv2_large_patch14_224", {}),
}
VARIANTS = [
    {"global_pool": "avg"},
    {"global_pool": "avg", "fc_norm": False},
    {"global_pool": "avg", "class_token": False},
    {"global_pool": "avg", "pool_include_prefix": True},
    {"global_pool": "max"},
    {"global_pool": "max", "fc_norm": False},
    {"global_pool": "avgmax"},
    {"global_pool": "map"},
    {"global_pool": "map", "fc_norm": True},
    {"global_pool": ""},
    {"global_pool": "", "fc_norm": True},
    {"final_norm": False},
    {"norm_layer": "rmsnorm"},
    {"norm_layer": "rmsnorm", "global_pool": "max"},
    {"embed_norm_layer": "layernorm"},
    {"embed_norm_layer": "rmsnorm"},
    {"pos_embed": "none"},
    {"no_embed_class": True, "reg_tokens": 2},
    {"qkv_bias": False},
    {"proj_bias": False},
    {"qk_norm": True},
    {"scale_attn_norm": True},
    {"scale_mlp_norm": True},
    {"init_values": 0.1},
    {"dynamic_img_size": True},
]
MODELS = NAMES | {str(variant): ("vit_tiny_patch16_224", variant) for variant in VARIANTS}


def make(kind: str, **changed) -> nn.Module:
    """An opened teacher, float64, every parameter random."""
    name, arguments = MODELS[kind]
    arguments = VIT | arguments | changed
    torch.manual_seed(0)
    module = timm.create_model(name, **arguments).requires_grad_(False)
    for parameter in module.parameters():
        parameter.add_((0.3 if parameter.ndim == 1 else 0.1) * torch.randn_like(parameter))
    return load_teacher(module, **arguments).double()


def inputs(model: nn.Module) -> torch.Tensor:
    return torch.randn(3, 3, *image_size(model), dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_classes", [5, 0], ids=["classes", "features"])
@pytest.mark.parametrize("kind", MODELS)
def test_the_function_stays_and_timms_model_can_take_it_back(kind, num_classes):
    if num_classes and not MODELS[kind][1].get("global_pool", "token"):
        pytest.skip("it classifies each token")
    teacher = make(kind, num_classes=num_classes)
    images = inputs(teacher)
    expected, rotated = teacher(images), prepare(teacher)
    left_out = {"norms after": {"rotate_residual"}}.get(kind, set())
    assert set(ROTATIONS) - set(rotated.vitdfq["prepare"]["steps"]) == left_out
    torch.testing.assert_close(rotated(images), expected, rtol=1e-9, atol=1e-9)
    plain = plain_model(quantize(rotated, overrides={"*": {"bits": None}}), rotated)
    assert not any(isinstance(part, Affine) for part in plain.modules())
    for single in (plain, prepare(teacher.float())):
        assert (single(images.float()) - expected).norm() < 1e-5 * expected.norm()


def matrices(kind: str) -> list[str]:
    """The matrices that stay in float at run time."""
    rotated = prepare(make(kind), steps=["rotate_residual"])
    return [name for name, part in rotated.named_modules() if isinstance(part, Affine)]


def test_matrices_at_run_time_only_where_nothing_absorbs_them():
    assert matrices("{'global_pool': 'avg'}") == matrices("{'global_pool': 'map'}") == []
    assert matrices("clip") == ["norm_pre.1"]
    assert matrices("{'embed_norm_layer': 'layernorm'}") == ["patch_embed.norm.1"]
    assert matrices("{'global_pool': 'max'}") == matrices("{'final_norm': False}") == ["norm.1"]


def test_an_outlier_channel_behind_clips_norm_is_spread():
    teacher = make("clip", embed_dim=64)
    with torch.no_grad():
        teacher.norm_pre.bias[5] += 40
        for block in teacher.blocks:
            nn.init.ones_(block.norm1.weight)

    def peak(model: nn.Module) -> float:
        seen = []
        with torch.no_grad():
            hook = model.blocks[1].attn.qkv.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
            model(inputs(model))
            hook.remove()
        return float(seen[0].abs().amax() / seen[0].square().mean().sqrt())

    assert peak(teacher) > 7 > 5 > peak(prepare(teacher, steps=["rotate_residual"]))


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_what_reads_two_kinds_of_norms_is_refused():
    teacher = make("registers")
    teacher.blocks[1].norm2 = nn.RMSNorm(32, eps=1e-6).double()
    with pytest.raises(ValueError, match="one kind of norm reads a stream only, not LayerNorm beside RMSNorm"):
        prepare(teacher, steps=["rotate_residual"])
    prepared = prepare(teacher)
    assert prepared.vitdfq["prepare"]["steps"] == ["rotate_heads", "rotate_mlp"]
    torch.testing.assert_close(prepared(inputs(teacher)), teacher(inputs(teacher)), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_a_norm_of_another_kind_is_named():
    teacher = make("registers")
    teacher.blocks[0].norm1 = nn.GroupNorm(1, 32)
    with pytest.raises(ValueError, match="works where every norm is a LayerNorm or an RMSNorm only, not on GroupNorm"):
        prepare(teacher, steps=["rotate_residual"])


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_an_mlp_of_another_kind_keeps_the_stream_as_it_is():
    class Squared(Mlp):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).square()

    teacher = make("registers")
    teacher.blocks[1].mlp.__class__ = Squared
    prepared = prepare(teacher)
    assert "not rotated: the residual stream, because rotation works on timm's Attention and Mlp" in prepared.vitdfq["prepared"]
    torch.testing.assert_close(prepared(inputs(teacher)), teacher(inputs(teacher)), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_layer_scale_is_folded_where_the_stream_is_not_rotated():
    teacher = make("deit-3")
    teacher.blocks[0].norm1 = nn.GroupNorm(1, 32)
    assert prepare(teacher).vitdfq["prepare"]["steps"] == ["fold_layer_scale", "rotate_heads", "rotate_mlp"]
