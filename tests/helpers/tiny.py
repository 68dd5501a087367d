"""Tiny timm teachers with random parameters; biases of zero and gains of one would hide errors."""

import copy
from collections.abc import Callable
from functools import cache

import pytest
import timm
import torch

from vitdfq.models import load_teacher
from vitdfq.quantization import quantize

TINY = {  # at least one of each family: an entry here enrolls a new family in every contract test
    "vit": ("vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}),
    "deit": (
        "deit_tiny_distilled_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
    ),
    "layer_scale": (
        "vit_small_patch14_dinov2",
        {"img_size": 28, "patch_size": 7, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "clip": (  # a norm in front of the blocks, which would hardly matter beside it without large factors
        "vit_base_patch32_clip_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "init_values": 5.0},
    ),
    "siglip": (  # pooled by attention
        "vit_base_patch16_siglip_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]},
    ),
    "levit": (  # distilled; a stem of stride 8 gives 4 x 4 tokens at 32 pixels, then 2 x 2
        "levit_128s",
        {"img_size": 32, "stem_type": "s8", "embed_dim": [32, 48], "key_dim": 8, "depth": [2, 1], "num_heads": [2, 3]},
    ),
    "eva": (  # DINOv3 with biases beside qkv; rotary positions need a head of a multiple of four
        "vit_small_patch16_dinov3_qkvb",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "beit": (
        "beit_base_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2},
    ),
    "relpos": (
        "vit_relpos_small_patch16_224",
        {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "rel_pos_dim": 16, "qkv_bias": True},
    ),
    "swin_v2": (
        "swinv2_tiny_window8_256",
        {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]},
    ),
    "swin_v2_cr": (
        "swinv2_cr_tiny_ns_224",
        {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4]},
    ),
    "any": (  # opened by watching: the first attention is within units of 4 x 4, pooled to 2 x 2
        "hiera_tiny_224",
        {
            **{"img_size": 32, "embed_dim": 16, "num_heads": 2, "stages": [1, 2], "q_pool": 1},
            **{"mask_unit_size": [4, 4], "mask_unit_attn": [True, False]},
        },
    ),
}

FEATURES = {  # models that give features: contract tests of what needs no classes
    "backbone": ("vit_small_patch14_reg4_dinov2", {**TINY["layer_scale"][1], "num_classes": 0}),
    "tokens": ("vit_tiny_patch16_224", {**TINY["vit"][1], "num_classes": 0, "global_pool": ""}),
    "latent_pool": ("vit_base_patch16_siglip_224", {**TINY["siglip"][1], "num_classes": 0}),
    "embedding": ("vit_base_patch32_clip_224.openai", {**TINY["clip"][1], "num_classes": 512}),
    "eva_backbone": ("vit_small_patch16_dinov3_qkvb", {**TINY["eva"][1], "num_classes": 0}),
    "swin_backbone": ("swin_tiny_patch4_window7_224", {**TINY["swin"][1], "num_classes": 0}),
    "levit_backbone": ("levit_128s", {**TINY["levit"][1], "num_classes": 0}),
}


ALIKE = ("clip", "siglip", "beit", "relpos", "swin_v2_cr")  # to vit, eva and swin_v2, in what calibration sees of them
TO_CALIBRATE = [pytest.param(kind, marks=[pytest.mark.slow] if kind in ALIKE else []) for kind in TINY]  # for tests of seconds
FAST_FEATURES = ("backbone", "embedding")
FEATURE_KINDS = [pytest.param(kind, marks=[] if kind in FAST_FEATURES else [pytest.mark.slow]) for kind in FEATURES]


def make_tiny(kind: str) -> torch.nn.Module:
    """An opened teacher with random weights, the same at every call: of 10 classes, or one of `FEATURES`."""
    return copy.deepcopy(made_once(kind))  # a third of the time that opening takes, in thousands of tests


@cache
def made_once(kind: str) -> torch.nn.Module:
    name, kwargs = (TINY | FEATURES)[kind]
    kwargs = {"num_classes": 10, **kwargs}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = timm.create_model(name, **kwargs)
        with torch.no_grad():
            is_faint_at_first = hasattr(module, "head_init_scale")  # EVA's and BEiT's weights shrink with depth
            for path, parameter in module.named_parameters():
                if parameter.ndim == 1 or path.endswith("logit_scale"):
                    parameter.add_(0.2 * torch.randn_like(parameter))
                    parameter.add_(float("gamma_" in path))  # the scales of a branch, which start at almost nothing
                elif not parameter.any() or (is_faint_at_first and path == "head.weight"):  # tables of biases
                    parameter.normal_()
                else:
                    parameter.mul_(8.0 if is_faint_at_first else 2.0)
            generator = torch.Generator().manual_seed(0)
            randomize_batch_norms(module, torch.randn(16, 3, 32, 32, generator=generator), generator)
    return load_teacher(module, **kwargs)


def kinds_with(fact: Callable[[torch.nn.Module], object]) -> list[str]:
    """The kinds of tiny teachers of which a fact is true."""
    return [kind for kind in sorted(TINY) if fact(make_tiny(kind))]


def randomize_batch_norms(model: torch.nn.Module, images: torch.Tensor, generator: torch.Generator) -> None:
    """Give every BatchNorm random running statistics near those on these images, as a trained model has."""
    kinds = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    norms = [part for part in model.modules() if isinstance(part, kinds) and part.track_running_stats]
    if not norms:
        return
    for norm in norms:
        norm.momentum = 1.0
    training = model.training
    model.train()(images)
    model.train(training)
    for norm in norms:
        noise = torch.randn(2, norm.num_features, generator=generator)
        norm.momentum = 0.1
        norm.running_mean.add_(0.3 * noise[0] * norm.running_var.sqrt())
        norm.running_var.mul_((0.3 * noise[1]).exp())


def make_student_float(student: torch.nn.Module, teacher: torch.nn.Module) -> torch.nn.Module:
    """The float function of a student whose weights are not on their grids: its tensors, without any quantizer."""
    plain = quantize(teacher, overrides={"*": {"bits": None}})
    state = student.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    return plain
