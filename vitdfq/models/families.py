"""The opened families, and the facts of a model that its family states."""

from typing import Any

import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from vitdfq.common.lookup import lookup
from vitdfq.models.any_timm import ANY, is_watched
from vitdfq.models.beit import BEIT
from vitdfq.models.eva import EVA
from vitdfq.models.family import AttentionSite, EndSites, Family, NormReaders, Projections, Unit
from vitdfq.models.levit import LEVIT
from vitdfq.models.relpos import RELPOS
from vitdfq.models.sites import is_layer
from vitdfq.models.swin import SWIN
from vitdfq.models.swin_v2 import SWIN_V2
from vitdfq.models.swin_v2_cr import SWIN_V2_CR
from vitdfq.models.vit import VIT

FAMILIES: dict[str, Family] = {
    "vit": VIT,
    "swin": SWIN,
    "levit": LEVIT,
    "eva": EVA,
    "beit": BEIT,
    "relpos": RELPOS,
    "swin_v2": SWIN_V2,
    "swin_v2_cr": SWIN_V2_CR,
    ANY.name: ANY,  # last: it takes what no other family opens
}


def family_of(model: nn.Module) -> Family:
    """Return the family of a timm model: the first that matches it and opens all its attentions.

    Raises:
        ValueError: none does; the message names the supported families and the file to add.
    """
    if is_watched(model):
        return ANY
    for family in FAMILIES.values():
        if family.matches(model) and (family is ANY or opens_all(family, model)):
            return family
    raise ValueError(refusal(model, f"no family has {type(model).__name__}"))


def opens_all(family: Family, model: nn.Module) -> bool:
    """Return whether all attentions of a timm model, which timm marks so, are of the kinds that a family opens."""
    return all(type(part) in family.attentions for part in model.modules() if hasattr(part, "fused_attn"))


def open_model(model: nn.Module, family: str | None = None) -> None:
    """Swap the attentions of a timm model for opened ones, in place; an opened model stays as it is.

    Args:
        model: of timm's.
        family: one of `FAMILIES`; None: the first that opens it.

    Raises:
        ValueError: no family opens the model, or not the one that was asked for.
    """
    chosen = family_of(model) if family is None else lookup(family, FAMILIES, "family")
    if not chosen.matches(model) or not (chosen is ANY or opens_all(chosen, model)):
        raise ValueError(refusal(model, f"family {chosen.name} does not have this {type(model).__name__}"))
    try:
        chosen.open(model)
    except ValueError as error:
        raise ValueError(refusal(model, str(error))) from error


def units(model: nn.Module) -> list[Unit]:
    """Return the chain of links that makes up the model, first to last."""
    return family_of(model).units(model)


def attention_sites(model: nn.Module) -> list[AttentionSite]:
    """Return the opened attentions of a model in order of depth."""
    return family_of(model).attention_sites(model)


def projections(model: nn.Module) -> list[Projections]:
    """Return the linear layers around each attention, in the order of `attention_sites`; the same for teacher and student."""
    return family_of(model).projections(model)


def norm_readers(model: nn.Module) -> list[NormReaders]:
    """Return every norm that only linear layers read, with these, in order of execution; the same for teacher and student."""
    return list(family_of(model).norm_readers(model))


def gelu_readers(model: nn.Module) -> set[str]:
    """Return the names of the linear layers that read GELU's output, or a gated unit's in its place; teacher or student."""
    return {site.reader for site in family_of(model).mlp_sites(model)}


def prefix_tokens(model: nn.Module) -> dict[str, int]:
    """Return how many tokens (class token, registers) stand in front of all patches in the input of each linear layer.

    Layers whose inputs have none are left out: outside the blocks, and in families without such tokens.
    """
    family = family_of(model)
    if family is ANY:  # its units may mix tokens and maps
        return {}
    names = {id(part): name for name, part in model.named_modules()}
    counts = {site.name: site.num_prefix_tokens for site in family.attention_sites(model) if site.num_prefix_tokens}
    tops = [top for unit in family.units(model)[1:-1] for top in unit.modules]
    blocks = {top: count for top in tops for name, count in counts.items() if name.startswith(f"{names[id(top)]}.")}
    return {names[id(part)]: count for top, count in blocks.items() for part in top.modules() if isinstance(part, nn.Linear)}


def end_sites(model: nn.Module) -> EndSites:
    """Return the layers of the first and of the last unit of a float model: those that read the image, and the classifiers."""
    family = family_of(model)
    if family.ends is not None:
        return family.ends(model)
    names = {id(part): name for name, part in model.named_modules() if is_layer(part)}
    chain, attentions = family.units(model), tuple(f"{site.name}." for site in family.attention_sites(model))

    def sites(unit: Unit) -> tuple[str, ...]:
        layers = [names[id(part)] for top in unit.modules for part in top.modules() if id(part) in names]
        return tuple(name for name in layers if not name.startswith(attentions))  # a pooling by attention is like a block

    return EndSites(sites(chain[0]), sites(chain[-1]))


def head_outputs(model: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, pooled features and logits of a model, from the output `x` of its last block."""
    family = family_of(model)
    if family.outputs is not None:
        return family.outputs(model, x)
    tokens = x if family.final_norm is None else model.get_submodule(family.final_norm)(x)
    return tokens, model.forward_head(tokens, pre_logits=True), model.forward_head(tokens)


def image_size(model: nn.Module) -> tuple[int, int]:
    """Return (height, width) of the images that the model was built for, at whatever size its weights were trained."""
    return family_of(model).image_size(model)


def image_range(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the normalized values of a black and of a white pixel, each (1, 3, 1, 1), on the model's device.

    Mean and standard deviation come from the model's `pretrained_cfg` (ViT's are often 0.5, DeiT's and Swin's are ImageNet's).
    """
    config = resolve_model_data_config(model)
    device = next(model.parameters()).device
    mean = torch.tensor(config["mean"], dtype=torch.float32, device=device).view(1, -1, 1, 1)
    std = torch.tensor(config["std"], dtype=torch.float32, device=device).view(1, -1, 1, 1)
    return (0 - mean) / std, (1 - mean) / std


def refusal(model: nn.Module, reason: str) -> str:
    """Return the one line in which a model is refused: its name, the reason, the supported families, the file to add."""
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", type(model).__name__)
    supported = "; ".join(f"{family.name} ({family.examples})" for family in FAMILIES.values())
    return f"cannot open {name}: {reason}; supported: {supported}; a new family is one file, vitdfq/models/<family>.py"
