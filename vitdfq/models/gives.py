"""What the outputs of a model are: classes, or features."""

from functools import cache
from typing import Any, Literal

import timm
from timm.models import get_pretrained_cfg
from torch import Tensor

TEXT_IMAGE = ("clip", "pe_core")  # in an architecture's or a tag's name: the head was trained to meet the embedding of a text
FINE_TUNED = "ft_in"  # in a tag: the head was replaced by a classifier of ImageNet; "ft_320" is still a projection


def gives(model: Any) -> Literal["classes", "features"]:
    """Return whether a teacher or a student gives logits of classes, or features: tokens, a pooled token, an embedding.

    A model without a head gives features. So does a tower of a pair of text and image encoders (CLIP, MetaCLIP, PE): its head is
    a linear layer, but it writes an embedding. The weights do not tell; timm's tags do. A head as wide as one that timm publishes
    for the architecture, of such a training and not fine-tuned, is a projection, unless the model's `pretrained_cfg` (in a
    folder: its config.json) has `label_names`.
    """
    classes, config = getattr(model, "num_classes", 0), getattr(model, "pretrained_cfg", None) or {}
    if not classes:
        return "features"
    if config.get("label_names") or FINE_TUNED in (config.get("tag") or ""):
        return "classes"
    return "features" if classes in projection_widths(config.get("architecture") or "") else "classes"


def mean_over_tokens(features: Tensor) -> Tensor:
    """Return one vector for each image, (B, D), of features (B, D), or (B, N, D), (B, H, W, D) of a model that does not pool."""
    return features if features.ndim == 2 else features.flatten(1, -2).mean(1)


def output_name(model: Any) -> Literal["logits", "features", "embedding"]:
    """Return what the outputs of a model are called: those of a projection to the space of texts are an embedding."""
    if gives(model) == "classes":
        return "logits"
    return "embedding" if getattr(model, "num_classes", 0) else "features"


def feature_width(model: Any) -> int:
    """Return the width of a model's outputs: its number of classes, or the channels of its features."""
    return model.num_classes or model.head_hidden_size


@cache
def projection_widths(architecture: str) -> frozenset[int]:
    """Return the widths of the projections that timm publishes weights of for an architecture."""
    published = [get_pretrained_cfg(name) for name in timm.list_pretrained(f"{architecture}.*") if is_projection(name)]
    return frozenset(config.num_classes for config in published if config is not None and config.num_classes)


def is_projection(name: str) -> bool:
    """Return whether the head of timm's `architecture.tag`, if it has one, projects to the embedding of a text."""
    return any(word in name for word in TEXT_IMAGE) and FINE_TUNED not in name
