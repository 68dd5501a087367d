"""Swin and Swin v2, as timm's."""

from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.models.transformers.config import Config
from vitdfq.models.transformers.names import Rules, Structure, Tensors, renamed, with_qkv
from vitdfq.models.untrusted import short

RULES: Rules = [
    (r"^swin(v2)?\.", ""),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^encoder\.layers\.(\d+)\.downsample\.", lambda match: f"layers.{int(match[1]) + 1}.downsample."),  # timm: before a stage
    (r"^encoder\.", ""),
    (r"\.attention\.self\.continuous_position_bias_mlp\.", ".attn.cpb_mlp."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
]
DROPPED = r"^embeddings\.mask_token|\.relative_position_index$|\.relative_coords_table$"
WIDTHS = {128: "base", 192: "large"}  # what timm calls them; all others are called tiny
EPS = 1e-5  # of the norms that the config's does not reach


def swin(config: Config) -> Structure:
    """Swin: tables of position biases."""

    def tensors(theirs: Tensors) -> Tensors:
        return with_qkv(renamed(theirs, RULES, DROPPED))

    architecture = f"swin_{WIDTHS.get(config.whole('embed_dim'), 'tiny')}_patch4_window7_224"
    return Structure(architecture, _arguments(config, "gelu"), tensors)


def swin_v2(config: Config) -> Structure:
    """Swin v2: an MLP of positions, made for the windows of the pretraining, and biases of queries and values alone."""

    def tensors(theirs: Tensors) -> Tensors:
        rules = [*RULES, (r"\.attn\.query\.bias$", ".attn.q_bias"), (r"\.attn\.value\.bias$", ".attn.v_bias")]
        return with_qkv(renamed(theirs, rules, DROPPED))

    size = {"tiny": "tiny_window8_256", "base": "base_window8_256", "large": "large_window12_192"}
    windows = config.values.get("pretrained_window_sizes", config.defaults["pretrained_window_sizes"])
    if not isinstance(windows, list) or any(type(window) is not int for window in windows):
        raise InputError(f"{config.file}: pretrained_window_sizes is {short(windows)}; expected a list of whole numbers")
    arguments = _arguments(config, None) | {"act_layer": config.activation(), "pretrained_window_sizes": windows}
    return Structure(f"swinv2_{size[WIDTHS.get(config.whole('embed_dim'), 'tiny')]}", arguments, tensors)


def _arguments(config: Config, activation: str | None) -> dict[str, Any]:
    """timm's arguments.

    Raises:
        InputError: something that timm does not have: absolute positions, another activation or epsilon.
    """
    needed = {
        "use_absolute_embeddings": (config.flag("use_absolute_embeddings"), False),
        "qkv_bias": (config.flag("qkv_bias"), True),
        "layer_norm_eps": (config.number("layer_norm_eps"), EPS),
        "hidden_act": (config.activation(), activation or config.activation()),
    }
    for key, (value, only) in needed.items():
        if value != only:
            raise InputError(f"{config.file}: {key} is {value!r}; timm's Swin has {only!r} only")
    return {
        "img_size": config.img_size or config.size("image_size"),
        "patch_size": config.size("patch_size"),
        "embed_dim": config.whole("embed_dim"),
        "depths": config.wholes("depths"),
        "num_heads": config.wholes("num_heads"),
        "window_size": config.whole("window_size"),
        "mlp_ratio": config.number("mlp_ratio"),
        "norm_eps": EPS,
    }
