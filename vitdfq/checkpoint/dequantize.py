"""A student's dequantized weights in the model that timm builds: no quantizer, no rotation, no module of ours but the attention.

How the plain model's function differs from the student's float function, by the transform that is undone:

- Rotations of Swin's stream, of heads and MLPs, folded LayerScale and BatchNorm: only by rounding.
- A rotated ViT with LayerNorms: by the mean over channels that quantized weights write into the stream. The rotated model's
  RMSNorm reads it, timm's LayerNorm drops it: one of D directions of the quantization noise.
- A bias that timm's layer does not have (Swin's `reduction`) moves into the norm in front, that of CLIP's patches into the
  position embedding. Where neither can take it, as before a ViT's qkv without bias, the layer keeps it, and the state has one key
  more than timm's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vitdfq.models import build, family_of, norm_readers, projections
from vitdfq.models.norms import NORMS
from vitdfq.preparation.fold import gain_and_shift
from vitdfq.preparation.undo import undo
from vitdfq.quantization.modules import QuantLinear, named_weighted_modules

State = dict[str, Tensor]


@torch.no_grad()
def plain_model(student: Any, prepared: nn.Module) -> nn.Module:
    """Return the model of `student`'s architecture with its dequantized weights; `prepared`, its float structure, is used up."""
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
    for name in [name for name in state if name not in known]:
        _place_bias(plain, state, name)
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


def _place_bias(plain: nn.Module, state: State, name: str) -> None:
    """Move a bias that timm's layer does not have to where timm has one, or else add it to the layer."""
    bias, owner = state.pop(name), name.removesuffix(".bias")
    batch_norm = next((site.norm for site in family_of(plain).batch_norms(plain) if site.layer == owner and site.follows), None)
    if batch_norm is not None:
        gain, _ = gain_and_shift(plain.get_submodule(batch_norm))
        state[f"{batch_norm}.bias"] += (gain * bias.double()).to(bias.dtype)
        return
    added = next((site for site in family_of(plain).token_biases(plain) if site.layer == owner), None)
    if added is not None:
        state[added.tokens] = state[added.tokens].clone()
        state[added.tokens][:, added.first :] += bias
        return
    bias = _beside(plain, state, owner, bias)
    norm = next((site.norm for site in norm_readers(plain) if site.readers == (owner,) and site.shifts), None)
    if bias.any() and (norm is None or not _into_norm(state, f"{norm}.bias", state[f"{owner}.weight"], bias)):
        plain.get_submodule(owner).bias = nn.Parameter(bias, requires_grad=False)
        state[name] = bias


def _beside(plain: nn.Module, state: State, owner: str, bias: Tensor) -> Tensor:
    """Move a bias of queries, keys and values into the parameters that timm adds beside the layer; return what is left of it."""
    left = bias.clone()
    for site in projections(plain):
        written = [rows for rows in (site.queries, site.keys, site.values) if rows is not None and rows.linear == owner]
        if not any(rows.bias for rows in written):
            continue
        for rows in written:
            if rows.bias:
                state[rows.bias] = state[rows.bias] + bias[list(rows.rows)]
            if rows.bias or (rows is site.keys and site.shifts):  # softmax ignores a bias of the keys
                left[list(rows.rows)] = 0
    return left


def _into_norm(state: State, shift: str, weight: Tensor, bias: Tensor) -> bool:
    """Add to a norm's shift a vector that its one reader maps to `bias`, and return True; False if there is none."""
    weight, wanted = weight.double(), bias.double()
    solution = torch.linalg.pinv(weight) @ wanted
    if shift not in state or not torch.allclose(weight @ solution, wanted, rtol=1e-6, atol=1e-6 * wanted.abs().max().item()):
        return False
    state[shift] = (state[shift].double() + solution).to(bias.dtype)
    return True
