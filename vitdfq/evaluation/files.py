"""Files that read classes from features: a linear head, or the embeddings of texts. Both are safetensors, checked."""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vitdfq.common.errors import InputError
from vitdfq.common.safetensors_io import read_tensors

LOGIT_SCALE = 100.0  # the factor of CLIP's published models
LEAST_SCALE = 10.0  # below it stands the logarithm of a factor, which CLIP's parameter of that name is


def read_linear_head(path: Path, width: int) -> tuple[Tensor, Tensor]:
    """Return the weight (C, D) and the bias (C,), zeros without one, in float32.

    Args:
        path: of a safetensors file with the tensor `weight` and, if there is one, `bias`.
        width: D, the width of the features.

    Raises:
        InputError: missing, damaged, a pickle, other tensors or shapes, or NaN or infinite values.
    """
    tensors = read_tensors(path)
    if "weight" not in tensors or tensors.keys() - {"weight", "bias"}:
        raise InputError(f"{path}: a linear head has the tensors weight and bias; found: {', '.join(sorted(tensors)) or 'none'}")
    weight = _matrix(path, "weight", tensors["weight"], width)
    bias = tensors.get("bias", torch.zeros(len(weight)))
    if bias.shape != (len(weight),):
        raise InputError(f"{path}: bias is {tuple(bias.shape)}; expected ({len(weight)},), one number a row of weight")
    return weight, _finite(path, "bias", bias)


def read_text_embeddings(path: Path, width: int) -> Tensor:
    """Return the texts' unit vectors times the factor `logit_scale`, (C, D): their products with unit features are logits.

    Args:
        path: of a safetensors file with one tensor (C, D), and `logit_scale` if it is not 100.
        width: D, the width of the features.

    Raises:
        InputError: missing, damaged, a pickle, other tensors or shapes, NaN or infinite values, or a factor that cannot be.
    """
    tensors = read_tensors(path)
    scale = tensors.pop("logit_scale", torch.tensor(LOGIT_SCALE))
    if len(tensors) != 1:
        names = ", ".join(sorted(tensors)) or "none"
        raise InputError(f"{path}: text embeddings are one tensor (classes, width) beside logit_scale; found: {names}")
    name, embeddings = next(iter(tensors.items()))
    embeddings = _matrix(path, name, embeddings, width)
    if not embeddings.any(dim=1).all():
        raise InputError(f"{path}: row {int((~embeddings.any(dim=1)).nonzero()[0])} of {name} is zero, so it has no direction")
    if scale.numel() != 1:
        raise InputError(f"{path}: logit_scale is {tuple(scale.shape)}; expected one number")
    factor = _finite(path, "logit_scale", scale).item()
    if factor < LEAST_SCALE:
        raise InputError(
            f"{path}: logit_scale is {factor:g}; expected the factor of the cosines, such as 100, not its logarithm as in CLIP"
        )
    return factor * F.normalize(embeddings, dim=1)


def _matrix(path: Path, name: str, value: Tensor, width: int) -> Tensor:
    """Return a float32 matrix of that width.

    Raises:
        InputError: it is not one.
    """
    if value.ndim != 2 or value.shape[1] != width or len(value) < 2:
        raise InputError(f"{path}: {name} is {tuple(value.shape)}; expected (classes, {width}), as wide as the model's features")
    return _finite(path, name, value)


def _finite(path: Path, name: str, value: Tensor) -> Tensor:
    if not value.is_floating_point():
        raise InputError(f"{path}: {name} holds {value.dtype}; expected floating point")
    if not value.isfinite().all():
        raise InputError(f"{path}: {name} holds NaN or infinite values")
    return value.float()
