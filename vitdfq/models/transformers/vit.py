"""ViT, ViT-MSN, DeiT, DINOv2, and the image towers of SigLIP and CLIP, as timm's VisionTransformer."""

import math
from collections.abc import Callable
from typing import Any

from vitdfq.models.transformers.config import Config
from vitdfq.models.transformers.names import Rules, Structure, Tensors, grid_of, renamed, resampled, with_qkv

RULES: Rules = [
    (r"^(vit|deit|dinov2|dinov2_with_registers|vision_model)\.", ""),
    (r"^vision_model\.", ""),
    (r"^embeddings\.(cls_token|class_embedding)$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings?(\.weight)?$", "pos_embed"),
    (r"^embeddings\.patch_embeddings?(\.projection)?\.", "patch_embed.proj."),
    (r"^encoder\.layers?\.", "blocks."),
    (r"\.attention\.attention\.(query|key|value)\.", r".attn.\1."),
    (r"\.self_attn\.q_proj\.", ".attn.query."),
    (r"\.self_attn\.k_proj\.", ".attn.key."),
    (r"\.self_attn\.v_proj\.", ".attn.value."),
    (r"\.(attention\.output\.dense|self_attn\.out_proj)\.", ".attn.proj."),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.weights_out)\.", ".mlp.fc2."),
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^pre_layrnorm\.", "norm_pre."),  # CLIP's own spelling
    (r"^(layernorm|post_layernorm)\.", "norm."),
    (r"^head\.probe$", "attn_pool.latent"),
    (r"^head\.attention\.in_proj_(weight|bias)$", r"attn_pool.in_proj.\1"),
    (r"^head\.attention\.out_proj\.", "attn_pool.proj."),
    (r"^head\.layernorm\.", "attn_pool.norm."),
    (r"^head\.mlp\.", "attn_pool.mlp."),
    (r"^(classifier|cls_classifier|visual_projection)\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
]
# Of pretraining, of the text's side of a pair, tables of numbers 0, 1, 2 ...: nothing of it is part of the image's features.
DROPPED = r"^(embeddings\.mask_token|embeddings\.position_ids|pooler\.|text_model\.|text_projection\.|logit_(scale|bias)$)"
WIDTHS = {192: "tiny", 384: "small", 1024: "large"}  # what timm calls them; all others are called base


def vit(config: Config) -> Structure:
    """ViT and ViT-MSN: a class token."""
    return _structure(config, f"vit_{_size(config)}_patch16_224", {}, prefix=1)


def deit(config: Config) -> Structure:
    """DeiT: with a teacher two classifiers are averaged; without, the distillation token takes part as a register does."""
    if config.gives == "distilled classes":
        return _structure(config, "deit_base_distilled_patch16_224", {}, prefix=2)

    def with_register(tensors: Tensors) -> Tensors:
        return {"reg_token" if name == "dist_token" else name: value for name, value in tensors.items()}

    return _structure(config, f"vit_{_size(config)}_patch16_224", {"reg_tokens": 1}, prefix=2, change=with_register)


def dinov2(config: Config) -> Structure:
    """DINOv2: LayerScale, registers without positions, and in the largest model gated MLPs."""
    has_registers, is_gated = "num_register_tokens" in config.defaults, config.flag("use_swiglu_ffn")
    arguments: dict[str, Any] = {"init_values": 1.0}
    if has_registers:
        arguments |= {"reg_tokens": config.whole("num_register_tokens"), "no_embed_class": True}
    hidden = int(config.whole("hidden_size") * config.number("mlp_ratio"))
    if is_gated:  # timm counts both halves
        hidden = 2 * ((int(hidden * 2 / 3) + 7) // 8 * 8)
    size = "giant" if is_gated else _size(config)

    def with_position_in_class_token(tensors: Tensors) -> Tensors:
        if not has_registers or not {"cls_token", "pos_embed"} <= set(tensors):
            return tensors
        positions = tensors["pos_embed"]
        return tensors | {"cls_token": tensors["cls_token"] + positions[:, :1], "pos_embed": positions[:, 1:]}

    return _structure(
        config,
        f"vit_{size}_patch14_{'reg4_' if has_registers else ''}dinov2",
        arguments,
        prefix=1,
        hidden=hidden,
        is_gated=is_gated,
        antialias=has_registers,
        change=with_position_in_class_token,
    )


def siglip(config: Config) -> Structure:
    """SigLIP: no class token; a learned query pools the patches, or a classifier reads their mean."""
    pools = config.gives != "classes" and config.flag("vision_use_head")
    pool = "map" if pools else "avg" if config.gives == "classes" else ""

    def with_query(tensors: Tensors) -> Tensors:
        if not pools:
            return {name: value for name, value in tensors.items() if not name.startswith("attn_pool.")}
        result = dict(tensors)
        for kind in ("weight", "bias"):
            rows = result.pop(f"attn_pool.in_proj.{kind}", None)
            if rows is not None:
                third = len(rows) // 3
                result |= {f"attn_pool.q.{kind}": rows[:third], f"attn_pool.kv.{kind}": rows[third:]}
        return result

    arguments = {"class_token": False, "global_pool": pool, "fc_norm": False}
    return _structure(config, "vit_base_patch16_siglip_224", arguments, prefix=0, change=with_query)


def clip(config: Config) -> Structure:
    """CLIP: a norm in front of the blocks; the class token, projected or not, or a classifier of the mean of patches, no norm."""
    is_classifier = config.gives == "classes"
    arguments = {"pre_norm": True, "final_norm": not is_classifier, "global_pool": "avg" if is_classifier else "token"}
    width = config.whole("hidden_size")
    name = {1024: "vit_large_patch14_clip_224", 1280: "vit_huge_patch14_clip_224"}.get(width, "vit_base_patch32_clip_224")

    def with_head(tensors: Tensors) -> Tensors:
        result = {name: value for name, value in tensors.items() if not (is_classifier and name.startswith("norm."))}
        if config.gives == "projection" and "head.weight" in result:  # timm's head has a bias
            result["head.bias"] = result["head.weight"].new_zeros(len(result["head.weight"]))
        return result

    return _structure(config, name, arguments, prefix=1, change=with_head)


def _structure(
    config: Config,
    architecture: str,
    arguments: dict[str, Any],
    prefix: int,
    *,
    hidden: int | None = None,
    is_gated: bool = False,
    antialias: bool = False,
    change: Callable[[Tensors], Tensors] = dict,
) -> Structure:
    """The structure of one tower.

    Args:
        config: of the tower.
        architecture: timm's name of the class with what `arguments` cannot say.
        arguments: those of this model type.
        prefix: number of tokens in front of the patches that have a position.
        hidden: width of the MLPs; None: `intermediate_size`.
        is_gated: the architecture has gated MLPs with an activation of their own.
        antialias: how positions are interpolated.
        change: of the renamed tensors.
    """
    width, image_size, patch_size = config.whole("hidden_size"), config.size("image_size"), config.size("patch_size")
    hidden, wanted = hidden or config.whole("intermediate_size"), config.img_size or image_size

    def tensors(theirs: Tensors) -> Tensors:
        ours = with_qkv(renamed(theirs, RULES, DROPPED))
        if "pos_embed" in ours:
            positions = ours["pos_embed"]
            positions = positions[None] if positions.ndim == 2 else positions
            grids = grid_of(image_size, patch_size), grid_of(wanted, patch_size)
            ours["pos_embed"] = resampled(positions, prefix, *grids, antialias)
        if "cls_token" in ours and ours["cls_token"].ndim == 1:
            ours["cls_token"] = ours["cls_token"][None, None]
        if config.gives == "features":
            ours = {name: value for name, value in ours.items() if not name.startswith("head.")}
        return change(ours)

    model_args = {
        "img_size": wanted,
        "patch_size": patch_size,
        "embed_dim": width,
        "depth": config.whole("num_hidden_layers"),
        "num_heads": config.whole("num_attention_heads"),
        "mlp_ratio": _ratio(hidden, width),
        "qkv_bias": config.flag("qkv_bias"),
        "norm_eps": config.number("layer_norm_eps"),
        **({} if is_gated else {"act_layer": config.activation()}),
        **arguments,
    }
    return Structure(architecture, model_args, tensors)


def _size(config: Config) -> str:
    return WIDTHS.get(config.whole("hidden_size"), "base")


def _ratio(hidden: int, width: int) -> float:
    """The ratio whose product with the width, cut to a whole number as timm does, is `hidden`."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
