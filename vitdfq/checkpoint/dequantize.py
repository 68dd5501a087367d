"""A student's dequantized weights in the model that timm builds: no quantizer, no rotation, no module of ours but the attention.

How the plain model's function differs from the student's float function, by the transform that is undone:

- Rotations of Swin's stream, of heads and MLPs, folded LayerScale and BatchNorm: only by rounding.
- A rotated ViT with LayerNorms: by the mean over channels that quantized weights write into the stream. The rotated model's
  RMSNorm reads it, timm's LayerNorm drops it: one of D directions of the quantization noise.
- A bias that timm's layer does not have (Swin's `reduction`, EVA's keys) moves into the norm in front, that of CLIP's patches
  into the position embedding. Where neither can take it, as before the qkv of a ViT without biases or of Swin v2, the layer keeps
  it, and the state has one key more than timm's.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitdfq.common.errors import InputError
from vitdfq.models import build, family_of, norm_readers, projections
from vitdfq.models.any_timm import computed_weights
from vitdfq.models.norms import NORMS
from vitdfq.preparation.fold import gain_and_shift
from vitdfq.preparation.linear import layer_at
from vitdfq.preparation.undo import undo
from vitdfq.quantization.modules import QuantLinear, named_weighted_modules

State = dict[str, Tensor]


@torch.no_grad()
def plain_model(student: Any, prepared: nn.Module) -> nn.Module:
    """Return the model of `student`'s architecture with its dequantized weights; `prepared`, its float structure, is used up."""
    if names := computed_weights(prepared):
        raise InputError(f"timm standardizes the weight of {names[0]} at every pass: its model cannot hold a dequantized one")
    _take_weights(student, prepared)
    undo(prepared, student.vitdfq.get("prepare", {"steps": []})["steps"])
    plain = build(student.vitdfq)
    state = dict(prepared.state_dict())
    known = plain.state_dict()
    for name, part in plain.named_modules():
        if isinstance(part, (*NORMS, _BatchNorm)) and not any(f"{name}.{key}" in state for key in part.state_dict()):
            state |= {f"{name}.{key}": value for key, value in neutral(part).items()}
    for site in family_of(plain).layer_scales(plain):
        state |= {
            key: torch.ones_like(known[key]) for key in (site.scale, f"{site.scale}.gamma") if key in known and key not in state
        }
    plain.load_state_dict({name: state[name] for name in known})
    behind = {site.layer: site.norm for site in family_of(plain).batch_norms(plain) if site.follows}
    for name in [name for name in state if name not in known]:
        _place_bias(plain, state, name, behind)
    plain.load_state_dict(state)
    return plain.eval().requires_grad_(False)


def _take_weights(student: Any, prepared: nn.Module) -> None:
    """Copy the student's weights; a plain Linear subtracts no shift, so the shift's product goes into its bias."""
    weights = student.state_dict()
    for name, module in named_weighted_modules(student):
        prepared.get_submodule(name).bias = nn.Parameter(torch.zeros_like(weights[f"{name}.bias"]), requires_grad=False)
        if isinstance(module, QuantLinear):
            weights[f"{name}.bias"] = weights[f"{name}.bias"] - module.weight @ module.input_shift
    prepared.load_state_dict({name: weights[name] for name in prepared.state_dict()})


def neutral(part: Any) -> State:
    """Return the state in which a norm has no affine, and a BatchNorm computes the identity."""
    state = {key: torch.zeros_like(value) for key, value in part.state_dict().items()}
    if "weight" in state:
        state["weight"] += 1
    if isinstance(part, _BatchNorm):
        state["running_var"] += 1 - part.eps
    return state


def _place_bias(plain: nn.Module, state: State, name: str, behind: Mapping[str, str]) -> None:
    """Move a bias that timm's layer does not have to where timm has one, or else add it to the layer; `behind`: BatchNorms."""
    bias, owner = state.pop(name), name.removesuffix(".bias")
    if batch_norm := behind.get(owner):
        gain, _ = gain_and_shift(plain.get_submodule(batch_norm))
        state[f"{batch_norm}.bias"] += (gain * bias.double()).to(bias.dtype)
        return
    added = next((site for site in family_of(plain).token_biases(plain) if site.layer == owner), None)
    if added is not None:
        state[added.tokens] = state[added.tokens].clone()
        state[added.tokens][:, added.first :] += bias
        return
    bias = _beside(plain, state, owner, bias)
    if bias.any() and not _into_norm(plain, state, owner, bias):
        plain.get_submodule(owner).bias = nn.Parameter(bias, requires_grad=False)
        state[name] = bias


def _beside(plain: nn.Module, state: State, owner: str, bias: Tensor) -> Tensor:
    """Move a bias into the parameters that timm adds beside the layer; return what is left of it."""
    left = bias.clone()
    for rows in family_of(plain).side_biases(plain):
        if rows.linear == owner and rows.bias:
            state[rows.bias] = state[rows.bias] + bias[list(rows.rows)]
            left[list(rows.rows)] = 0
    left[_unseen(plain, owner)] = 0
    return left


def _unseen(plain: nn.Module, owner: str) -> list[int]:
    """Return the rows of a layer that write keys, where softmax ignores their bias."""
    return [row for site in projections(plain) if site.shifts and site.keys.linear == owner for row in site.keys.rows]


def _into_norm(plain: nn.Module, state: State, owner: str, bias: Tensor) -> bool:
    """Add to the shift of the norm in front what `owner` maps to `bias`, and return True; False if there is no such vector.

    All that the norm's readers map it to besides is subtracted from biases that timm has.
    """
    site = next((site for site in norm_readers(plain) if owner in site.readers and site.shifts), None)
    if site is None or f"{site.norm}.bias" not in state:
        return False
    weights = torch.cat([state[f"{reader}.weight"].double() for reader in site.readers])
    wanted = torch.cat([bias if reader == owner else bias.new_zeros(len(state[f"{reader}.weight"])) for reader in site.readers])
    places = [place for reader in site.readers for place in _places(plain, reader)]  # of each row: a parameter and an index
    fixed = torch.tensor([place is None for place in places])
    solution = torch.linalg.pinv(weights[fixed]) @ wanted[fixed].double()
    missed = (weights[fixed] @ solution - wanted[fixed]).abs().max()
    if missed > 1e-6 * wanted.abs().max():
        return False
    state[f"{site.norm}.bias"] = (state[f"{site.norm}.bias"].double() + solution).to(bias.dtype)
    rest = (wanted - weights @ solution).to(bias.dtype)
    for place, value in zip(places, rest, strict=True):
        if place and place[0]:
            state[place[0]][place[1]] += value
    return True


def _places(plain: nn.Module, reader: str) -> list[tuple[str, int] | None]:
    """Return for each row of a layer the parameter that can hold its bias, and where; "" where no bias is seen, None for none."""
    layer = layer_at(plain, reader)
    if layer.bias is not None:
        return [(f"{reader}.bias", row) for row in range(len(layer.weight))]
    beside = [rows for rows in family_of(plain).side_biases(plain) if rows.linear == reader]
    places: dict[int, tuple[str, int]] = dict.fromkeys(_unseen(plain, reader), ("", 0))
    places |= {row: (rows.bias or "", index) for rows in beside for index, row in enumerate(rows.rows)}
    return [places.get(row) for row in range(len(layer.weight))]
