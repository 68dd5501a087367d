"""Variants of every family's architectures, by name, with parameters that all matter."""

import timm
import torch
from tiny import FEATURES, TINY, randomize_batch_norms
from torch import nn

from vitdfq.models import image_size

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
    "vit_map_fc_norm": ("vit_tiny_patch16_224", {**VIT, "global_pool": "map", "fc_norm": True, "norm_layer": "rmsnorm"}),
    "eva_two_norms": ("eva02_tiny_patch14_224", {**VIT, "use_post_transformer_norm": True, "use_fc_norm": True}),
    "eva_maximum": ("eva02_tiny_patch14_224", {**VIT, "global_pool": "max"}),
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
    "siglip2": ("vit_base_patch16_siglip_256", {**VIT, "qk_norm": True}),
    "eva02_separate_qkv": ("eva02_tiny_patch14_224", VIT),
    "eva02_clip": ("eva02_base_patch16_clip_224", VIT),
    "eva02_enormous": ("eva02_enormous_patch14_clip_224", VIT),
    "eva_without_rotary": ("eva_giant_patch14_224", VIT),
    "dinov3_without_biases": ("vit_small_patch16_dinov3", VIT),
    "dinov3_swiglu": ("vit_small_plus_patch16_dinov3", VIT),
    "rope_mixed": ("vit_small_patch16_rope_mixed_224", VIT),
    "rope_with_positions": ("vit_small_patch16_rope_ape_224", VIT),
    "rope_registers": ("vit_base_patch16_rope_reg1_gap_256", VIT),
    "perception_encoder": ("vit_pe_core_tiny_patch16_384", {**VIT, "attn_pool_num_heads": 2}),
    "sapiens": ("vit_base_patch16_sapiens2", {**VIT, "num_heads": 4, "embed_dim": 64, "num_kv_heads": 2}),
    "beit2_class_token": ("beitv2_base_patch16_224", {**VIT, "global_pool": "token"}),
    "beit_shared_bias": ("beit_base_patch16_224", {**VIT, "use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}),
    "relpos_class_token": ("vit_relpos_base_patch16_clsgap_224", {**VIT, "rel_pos_dim": 16}),
    "relpos_table": ("vit_relpos_base_patch32_plus_rpn_256", {**VIT, "rel_pos_type": "bias"}),
    "relpos_shared": ("vit_srelpos_small_patch16_224", {**VIT, "rel_pos_dim": 16}),
    "swin_v2_cr_extra_norms": (
        "swinv2_cr_small_224",
        {**SWIN, **TWO_STAGES, "img_size": (36, 20), "extra_norm_period": 2},
    ),
    "swin_v2_padded": ("swinv2_tiny_window8_256", {**SWIN, **TWO_STAGES, "img_size": (36, 20)}),
    "swin_v2_pretrained_window": (
        "swinv2_base_window12to16_192to256",
        {**SWIN, **TWO_STAGES, "pretrained_window_sizes": (3, 3)},
    ),
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


def some_images(model: nn.Module) -> torch.Tensor:
    return torch.randn(3, 3, *image_size(model), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def randomized(kind: str) -> nn.Module:
    """timm's model of one of `ARCHITECTURES`, not opened, with random parameters, in double precision."""
    name, arguments = ARCHITECTURES[kind]
    model = timm.create_model(name, **arguments).eval().requires_grad_(False).double()  # rounding differs between machines
    randomize(model)
    return model


def difference(plain: nn.Module, opened: nn.Module) -> float:
    """The largest difference of the logits, relative to the largest logit."""
    images = some_images(plain)
    expected = plain(images)
    return float((opened(images) - expected).abs().max() / expected.abs().max())
