"""The model types that are read: which classes of `transformers` they have, and what each of these gives."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vitdfq.models.transformers import swin, vit
from vitdfq.models.transformers.config import Config
from vitdfq.models.transformers.names import Structure

HALF, IMAGENET = ([0.5] * 3, [0.5] * 3), ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
CLIP = ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])

VIT: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
DINOV2 = VIT | {"layer_norm_eps": 1e-6, "patch_size": 14, "mlp_ratio": 4, "use_swiglu_ffn": False}
SIGLIP = VIT | {"layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh", "vision_use_head": True}
CLIP_TOWER = VIT | {"layer_norm_eps": 1e-5, "hidden_act": "quick_gelu", "patch_size": 32, "projection_dim": 512}
SWIN = {
    "image_size": 224,
    "patch_size": 4,
    "num_channels": 3,
    "embed_dim": 96,
    "depths": [2, 2, 6, 2],
    "num_heads": [3, 6, 12, 24],
    "window_size": 7,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "use_absolute_embeddings": False,
    "layer_norm_eps": 1e-5,
    "pretrained_window_sizes": [0, 0, 0, 0],
}


@dataclass(frozen=True)
class Kind:
    """A model type of transformers."""

    structure: Callable[[Config], Structure]
    classes: Mapping[str, str]  # class of transformers -> what it gives: "classes", "distilled classes", "projection", "features"
    defaults: Mapping[str, Any]  # of the config
    normalization: tuple[list[float], list[float]]  # mean and std of its published weights
    interpolates: bool = False  # whatever size the images have, without being asked
    no_head: Mapping[str, str] | None = None  # class whose head timm does not have -> what this head reads


KINDS: dict[str, Kind] = {
    "vit": Kind(vit.vit, {"ViTForImageClassification": "classes", "ViTModel": "features"}, VIT, HALF),
    "vit_msn": Kind(
        vit.vit,
        {"ViTMSNForImageClassification": "classes", "ViTMSNModel": "features"},
        VIT | {"layer_norm_eps": 1e-6},
        IMAGENET,
    ),
    "deit": Kind(
        vit.deit,
        {
            "DeiTForImageClassification": "classes",
            "DeiTForImageClassificationWithTeacher": "distilled classes",
            "DeiTModel": "features",
        },
        VIT,
        IMAGENET,
    ),
    "dinov2": Kind(
        vit.dinov2,
        {"Dinov2Model": "features"},
        DINOV2,
        IMAGENET,
        interpolates=True,
        no_head={"Dinov2ForImageClassification": "the class token and the mean of the patches side by side"},
    ),
    "dinov2_with_registers": Kind(
        vit.dinov2,
        {"Dinov2WithRegistersModel": "features"},
        DINOV2 | {"patch_size": 16, "num_register_tokens": 4},
        IMAGENET,
        interpolates=True,
        no_head={"Dinov2WithRegistersForImageClassification": "the class token and the mean of the patches side by side"},
    ),
    "siglip": Kind(vit.siglip, {"SiglipModel": "features", "SiglipForImageClassification": "classes"}, SIGLIP, HALF),
    "siglip_vision_model": Kind(vit.siglip, {"SiglipVisionModel": "features"}, SIGLIP, HALF),
    "clip": Kind(vit.clip, {"CLIPModel": "projection", "CLIPForImageClassification": "classes"}, CLIP_TOWER, CLIP),
    "clip_vision_model": Kind(
        vit.clip, {"CLIPVisionModel": "features", "CLIPVisionModelWithProjection": "projection"}, CLIP_TOWER, CLIP
    ),
    "swin": Kind(swin.swin, {"SwinForImageClassification": "classes", "SwinModel": "features"}, SWIN, IMAGENET),
    "swinv2": Kind(swin.swin_v2, {"Swinv2ForImageClassification": "classes", "Swinv2Model": "features"}, SWIN, IMAGENET),
}
