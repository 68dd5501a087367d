"""The opened families, and what is asked of a model through them."""

from fnmatch import fnmatchcase

from torch import nn

from vitdfq.models.family import AttentionSite, Family, NormReaders, Projections, Unit
from vitdfq.models.levit import LEVIT
from vitdfq.models.swin import SWIN
from vitdfq.models.vit import VIT

FAMILIES: dict[str, Family] = {
    "vit": VIT,
    "swin": SWIN,
    "levit": LEVIT,
}


def family_of(model: nn.Module) -> Family:
    """Return the family of a timm model.

    Raises:
        ValueError: none matches; the message names the supported families and the file to add.
    """
    for family in FAMILIES.values():
        if family.matches(model):
            return family
    stem = f" with a {type(model.patch_embed).__name__}" if hasattr(model, "patch_embed") else ""
    raise ValueError(refusal(model, f"no family has {type(model).__name__}{stem}"))


def open_model(model: nn.Module) -> None:
    """Swap the attentions of a timm model for opened ones, in place; an opened model stays as it is.

    Raises:
        ValueError: the family is not supported, or some attention in the model is of a kind it does not open.
    """
    family_of(model).open(model)
    for name, module in model.named_modules():
        if hasattr(module, "fused_attn"):  # timm's mark of a module that computes attention
            raise ValueError(refusal(model, f"no family opens the {type(module).__name__} at {name}"))


def units(model: nn.Module) -> list[Unit]:
    """Return the chain of links that makes up the model, first to last."""
    return family_of(model).units(model)


def attention_sites(model: nn.Module) -> list[AttentionSite]:
    """Return the opened attentions of a model in order of depth."""
    return family_of(model).attention_sites(model)


def projections(model: nn.Module) -> list[Projections]:
    """Return the linear layers around each attention, in the order of `attention_sites`; a teacher's or a student's names."""
    return family_of(model).projections(model)


def norm_readers(model: nn.Module) -> list[NormReaders]:
    """Return every norm that only linear layers read, with these, in order of execution; a teacher's or a student's names."""
    return family_of(model).norm_readers(model)


def gelu_readers(model: nn.Module) -> set[str]:
    """Return the linear layers that read GELU's output, by name; of a float model or a student."""
    return {name for name, _ in model.named_modules() if fnmatchcase(name, "*.fc2")}


def refusal(model: nn.Module, reason: str) -> str:
    name = (getattr(model, "pretrained_cfg", None) or {}).get("architecture", type(model).__name__)
    supported = "; ".join(f"{family.name} ({family.examples})" for family in FAMILIES.values())
    return f"cannot open {name}: {reason}; supported: {supported}; a new family is one file, vitdfq/models/<family>.py"
