"""Tiny folders as `transformers` saves them, written from timm models with random weights; the package is not needed.

Names and configs are those that transformers 5.24 wrote for models of these classes.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

LABELS = {"0": "tench, Tinca tinca", "1": "crane", "2": "crane", "3": "a cat", "4": "a dog"}
SIZES = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
TOWER = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
MLP, RATIO = {"intermediate_size": 72}, {"mlp_ratio": 2.25}
SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
SWIN_CONFIG = {"image_size": 32, **{key: value for key, value in SWIN.items() if key != "img_size"}, "mlp_ratio": 4.0}

VIT = (  # timm's names -> transformers'
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^dist_token$", "embeddings.distillation_token"),
    (r"^reg_token$", "embeddings.register_tokens"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^blocks\.", "encoder.layer."),
    (r"attn\.(query|key|value)", r"attention.attention.\1"),
    (r"attn\.proj", "attention.output.dense"),
    (r"ls([12])\.gamma", r"layer_scale\1.lambda1"),
    (r"^norm\.", "layernorm."),
)
BERT_MLP = ((r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense"))
BERT_NORMS = ((r"norm1", "layernorm_before"), (r"norm2", "layernorm_after"))
GATED_MLP = ((r"mlp\.fc1", "mlp.weights_in"), (r"mlp\.fc2", "mlp.weights_out"))
TOWERS = (  # of SigLIP and CLIP
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding.weight"),
    (r"^patch_embed\.proj", "embeddings.patch_embedding"),
    (r"^blocks\.", "encoder.layers."),
    (r"attn\.query", "self_attn.q_proj"),
    (r"attn\.key", "self_attn.k_proj"),
    (r"attn\.value", "self_attn.v_proj"),
    (r"attn\.proj", "self_attn.out_proj"),
    (r"(^|\.)norm([12])\.", r"\1layer_norm\2."),
    (r"^norm_pre\.", "pre_layrnorm."),
    (r"^norm\.", "post_layernorm."),
    (r"^attn_pool\.latent$", "head.probe"),
    (r"^attn_pool\.in_proj\.", "head.attention.in_proj_"),
    (r"^attn_pool\.proj", "head.attention.out_proj"),
    (r"^attn_pool\.norm", "head.layernorm"),
    (r"^attn_pool\.mlp", "head.mlp"),
)
SWINS = (
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^patch_embed\.norm", "embeddings.norm"),
    (r"^layers\.1\.downsample", "encoder.layers.0.downsample"),
    (r"^layers\.", "encoder.layers."),
    (r"attn\.proj", "attention.output.dense"),
    (r"attn\.q_bias", "attn.query.bias"),
    (r"attn\.v_bias", "attn.value.bias"),
    (r"attn\.cpb_mlp", "attn.continuous_position_bias_mlp"),
    (r"attn\.", "attention.self."),
    *BERT_MLP,
    *BERT_NORMS,
    (r"^norm\.", "layernorm."),
)


class Folder(NamedTuple):
    """A folder to write: what transformers calls the model, and what timm builds."""

    model_type: str
    class_name: str
    config: dict  # without what is the default of transformers
    architecture: str
    model_args: dict
    rules: tuple
    prefix: str = ""  # before the names of the tower
    head: dict | None = None  # timm's name -> transformers'; None: features
    eps: float | None = None  # as the config has it; None: timm's own


CLASSIFIER = {"head": "classifier"}
FOLDERS = {
    "vit": Folder(
        *("vit", "ViTForImageClassification", {**TOWER, **MLP, "layer_norm_eps": 1e-2}),
        *("vit_base_patch16_224", {**SIZES, **RATIO}, (*VIT, *BERT_MLP, *BERT_NORMS), "vit.", CLASSIFIER, 1e-2),
    ),
    "vit_other": Folder(  # no biases of queries, keys and values; another activation
        *("vit", "ViTModel", {**TOWER, **MLP, "qkv_bias": False, "hidden_act": "gelu_new"}),
        *("vit_base_patch16_224", {**SIZES, **RATIO, "qkv_bias": False, "act_layer": "gelu_tanh"}),
        *((*VIT, *BERT_MLP, *BERT_NORMS), "", None, 1e-12),
    ),
    "deit": Folder(
        *("deit", "DeiTForImageClassification", {**TOWER, **MLP}, "vit_base_patch16_224", {**SIZES, **RATIO, "reg_tokens": 1}),
        *((*VIT, *BERT_MLP, *BERT_NORMS), "deit.", CLASSIFIER, 1e-12),
    ),
    "deit_teacher": Folder(
        *("deit", "DeiTForImageClassificationWithTeacher", {**TOWER, **MLP}),
        *("deit_base_distilled_patch16_224", {**SIZES, **RATIO}, (*VIT, *BERT_MLP, *BERT_NORMS), "deit."),
        *({"head": "cls_classifier", "head_dist": "distillation_classifier"}, 1e-12),
    ),
    "dinov2": Folder(
        *("dinov2", "Dinov2Model", {**TOWER, "mlp_ratio": 2}, "vit_base_patch14_dinov2", {**SIZES, "mlp_ratio": 2}, VIT),
    ),
    "dinov2_gated": Folder(  # MLPs of 48 channels: 2/3 of 64, up to a multiple of 8
        *("dinov2", "Dinov2Model", {**TOWER, "mlp_ratio": 2, "use_swiglu_ffn": True}),
        *("vit_giant_patch14_dinov2", {**SIZES, "mlp_ratio": 3.0}, (*VIT, *GATED_MLP)),
    ),
    "dinov2_registers": Folder(
        *("dinov2_with_registers", "Dinov2WithRegistersModel", {**TOWER, "mlp_ratio": 2, "num_register_tokens": 3}),
        *("vit_base_patch14_reg4_dinov2", {**SIZES, "mlp_ratio": 2, "reg_tokens": 3}, VIT),
    ),
    "siglip": Folder(
        *("siglip_vision_model", "SiglipVisionModel", {**TOWER, **MLP}, "vit_base_patch16_siglip_224"),
        *({**SIZES, **RATIO, "act_layer": "gelu_tanh"}, TOWERS, "vision_model."),
    ),
    "siglip_pair": Folder(
        *("siglip", "SiglipModel", {"vision_config": {**TOWER, **MLP}}, "vit_base_patch16_siglip_224"),
        *({**SIZES, **RATIO, "act_layer": "gelu_tanh"}, TOWERS, "vision_model."),
    ),
    "siglip_classes": Folder(
        *("siglip", "SiglipForImageClassification", {"vision_config": {**TOWER, **MLP}}, "vit_base_patch16_siglip_gap_224"),
        *({**SIZES, **RATIO, "act_layer": "gelu_tanh"}, TOWERS, "vision_model.", CLASSIFIER),
    ),
    "clip": Folder(
        *("clip_vision_model", "CLIPVisionModel", {**TOWER, **MLP}, "vit_base_patch32_clip_quickgelu_224"),
        *({**SIZES, **RATIO}, TOWERS),  # as transformers 5 names them, without a prefix
    ),
    "clip_pair": Folder(
        *("clip", "CLIPModel", {"projection_dim": 512, "vision_config": {**TOWER, **MLP, "hidden_act": "gelu"}}),
        *("vit_base_patch32_clip_224", {**SIZES, **RATIO}, TOWERS, "vision_model.", {"head": "visual_projection"}),
    ),
    "clip_classes": Folder(
        *("clip", "CLIPForImageClassification", {"vision_config": {**TOWER, **MLP}}, "vit_base_patch32_clip_quickgelu_224"),
        *({**SIZES, **RATIO, "final_norm": False, "global_pool": "avg"}, TOWERS, "vision_model.", CLASSIFIER),
    ),
    "swin": Folder(
        *("swin", "SwinForImageClassification", SWIN_CONFIG, "swin_tiny_patch4_window7_224", SWIN, SWINS),
        *("swin.", {"head.fc": "classifier"}),
    ),
    "swin_v2": Folder(
        *("swinv2", "Swinv2ForImageClassification", SWIN_CONFIG, "swinv2_tiny_window8_256", SWIN, SWINS),
        *("swinv2.", {"head.fc": "classifier"}),
    ),
    "timm_wrapper": Folder(
        *("timm_wrapper", "TimmWrapperForImageClassification", {"architecture": "vit_tiny_patch16_224", "model_args": SIZES}),
        *("vit_tiny_patch16_224", SIZES, (), "timm_model.", {"head": "timm_model.head"}),
    ),
}


def write_folder(kind: str, folder: Path, **changes: object) -> nn.Module:
    """Write a folder of `FOLDERS`, with changes of its config.json; return timm's model with the same weights."""
    spec = FOLDERS[kind]
    outputs = 0 if spec.head is None else 512 if spec.head == {"head": "visual_projection"} else len(LABELS)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(spec.architecture, num_classes=outputs, **spec.model_args).eval()
        with torch.no_grad():
            for parameter in model.parameters():  # ones and zeros would hide errors
                parameter.add_(0.2 * torch.randn_like(parameter))
            if outputs == 512:
                model.head.bias.zero_()
    for part in model.modules():
        if isinstance(part, nn.LayerNorm) and spec.eps is not None:
            part.eps = spec.eps
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"label_names": list(LABELS.values()), "num_classes": 5} if kind == "timm_wrapper" else {"id2label": LABELS}
    config = {"architectures": [spec.class_name], "model_type": spec.model_type, **spec.config}
    config |= labels if outputs == len(LABELS) else {}
    (folder / "config.json").write_text(json.dumps(config | changes))
    save_file(transformers_tensors(spec, model.state_dict()), folder / "model.safetensors")
    return model


def transformers_tensors(spec: Folder, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of timm's model under transformers' names, and some that no tower reads."""
    result = {}
    for name, value in unjoined(state, spec.model_type).items():
        owner, _, last = name.rpartition(".")
        if spec.head and owner in spec.head:
            if spec.head[owner] != "visual_projection" or last == "weight":
                result[f"{spec.head[owner]}.{last}"] = value
            continue
        for old, new in spec.rules:
            name = re.sub(old, new, name)
        result[spec.prefix + name] = value
    tower = "" if spec.head is None else spec.prefix
    if spec.model_type.startswith(("vit", "deit", "dinov2")):
        result |= {f"{tower}embeddings.mask_token": torch.ones(1, 32), f"{spec.prefix}pooler.dense.weight": torch.ones(32, 32)}
    if spec.model_type in ("siglip", "clip"):
        result |= {"text_model.embeddings.token_embedding.weight": torch.ones(9, 32), "logit_scale": torch.ones(())}
        result |= {"vision_model.embeddings.position_ids": torch.arange(17)[None]}
    return {name: value.clone().contiguous() for name, value in result.items()}


def unjoined(state: dict[str, Tensor], model_type: str) -> dict[str, Tensor]:
    """timm's tensors in the portions of transformers: queries, keys and values apart, positions as transformers stores them."""
    result = {}
    for name, value in state.items():
        owner, _, last = name.rpartition(".")
        if owner.endswith(".qkv") and model_type != "timm_wrapper":
            parts = zip(("query", "key", "value"), value.chunk(3), strict=True)
            result |= {f"{owner.removesuffix('qkv')}{part}.{last}": rows for part, rows in parts}
        elif owner == "attn_pool.q":
            result[f"attn_pool.in_proj.{last}"] = torch.cat([value, state[f"attn_pool.kv.{last}"]])
        elif owner != "attn_pool.kv":
            result[name] = value
    if model_type == "deit" and "reg_token" in result:
        result["dist_token"] = result.pop("reg_token")
    if model_type == "dinov2_with_registers":  # the class token has a position there
        position = torch.linspace(-1, 1, 32).view(1, 1, 32)
        result |= {"cls_token": result["cls_token"] - position, "pos_embed": torch.cat([position, result["pos_embed"]], dim=1)}
    if model_type.startswith(("siglip", "clip")):
        result["pos_embed"] = result["pos_embed"][0]
        result |= {"cls_token": result["cls_token"].flatten()} if "cls_token" in result else {}
    return result
