"""Features as vectors: the tokens of an output, one vector for each image, and how near they are to the teacher's."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models import image_size
from vitdfq.models.block_maps import in_one
from vitdfq.models.build import without_storage


def tokens_of(model: Any, outputs: Tensor) -> Tensor:
    """Return the outputs of a model that gives features as tokens (B, N, D); N is 1 where it pools.

    Args:
        model: it tells which dimension of a map is the channels.
        outputs: (B, D), (B, N, D), (B, H, W, D) or (B, D, H, W).

    Raises:
        ValueError: another shape.
    """
    if outputs.ndim == 2:
        return outputs[:, None]
    width = getattr(model, "num_features", None)
    if outputs.ndim == 4 and outputs.shape[-1] != width and outputs.shape[1] == width:
        outputs = outputs.movedim(1, -1)
    if outputs.ndim < 3 or (outputs.ndim > 3 and outputs.shape[-1] != width):
        raise ValueError(
            f"the model gives {tuple(outputs.shape)} for {len(outputs)} images: neither a vector nor tokens; "
            "load it with another global_pool, such as 'avg'"
        )
    return outputs.flatten(1, -2)


def pooled(model: Any, outputs: Tensor) -> Tensor:
    """Return one vector (B, D) for each image, from the output of a model that gives features.

    A model that pools gives it. Of tokens (`global_pool=''`) it is what timm's usual pooling would take: the class token if there
    is one, else the mean over patches. `global_pool` when the model is loaded chooses another one.
    """
    tokens = tokens_of(model, outputs)
    if outputs.ndim == 3 and getattr(model, "cls_token", None) is not None:
        return tokens[:, 0]
    prefix = getattr(model, "num_prefix_tokens", 0) if outputs.ndim == 3 else 0
    return tokens[:, prefix:].mean(1)


def compare(tokens: Tensor, target: Tensor) -> Tensor:
    """Compare tokens (B, N, D) with the teacher's.

    Returns:
        (B, 3) float64: the cosine similarity, mean over tokens; the energy of the difference; the energy of the teacher's.

    Raises:
        ValueError: another shape than the teacher's.
    """
    if tokens.shape != target.shape:
        raise ValueError(f"the model gives {_shape(tokens)}, its teacher {_shape(target)}: not the same features")
    tokens, target = tokens.double(), target.double()
    energies = [value.square().sum((1, 2)) for value in (tokens - target, target)]
    return torch.stack([F.cosine_similarity(tokens, target, dim=-1).mean(1), *energies], dim=1)


def gives_vectors(model: nn.Module) -> bool:
    """Whether a model gives one vector (B, D) an image, rather than tokens; nothing is computed."""
    return in_one(without_storage(model)(torch.zeros(1, 3, *image_size(model), device="meta"))).ndim == 2


def _shape(tokens: Tensor) -> str:
    return f"{tokens.shape[1]} x {tokens.shape[2]} numbers an image"
