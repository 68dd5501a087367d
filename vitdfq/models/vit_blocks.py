"""The norms, MLPs and LayerScales of a ViT: branches that each read the residual stream and add to it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, ParallelThingsBlock
from torch import nn

from vitdfq.models.family import LayerScaleSite, MlpSite, NormReaders, TokenBias
from vitdfq.models.vit_attention import OpenedAttention

MLPS = (Mlp, GluMlp, SwiGLU)


@dataclass(frozen=True)
class Branch:
    """An attention or an MLP with the norm before it: x + scale * part(norm(x))."""

    norm: str  # "blocks.0.norm1"
    scale: str  # "blocks.0.ls1": LayerScale, or Identity; "blocks.0.gamma_1": a parameter, or None
    readers: tuple[str, ...]  # linear layers that read the norm: "blocks.0.attn.qkv"
    inner: str | None  # "blocks.0.attn.norm": a norm, or Identity, that the writer alone reads; None where a gate stands between
    writer: str  # "blocks.0.attn.proj"


def branches(model: Any) -> list[Branch]:
    """Return the branches of all blocks, in order of execution.

    A block of another kind, such as one that normalizes after attention, is left out: its norms write into the residual.
    """
    found: list[Branch | None] = []
    for index, block in enumerate(model.blocks):
        name = f"blocks.{index}"
        if type(block) is Block:
            found.append(_attention(block.attn, f"{name}.norm1", f"{name}.attn", f"{name}.ls1"))
            found.append(mlp_branch(block.mlp, f"{name}.norm2", f"{name}.mlp", f"{name}.ls2"))
        elif type(block) is ParallelThingsBlock:
            for i, branch in enumerate(block.attns):
                path = f"{name}.attns.{i}"
                found.append(_attention(branch.attn, f"{path}.norm", f"{path}.attn", f"{path}.ls"))
            for i, branch in enumerate(block.ffns):
                path = f"{name}.ffns.{i}"
                found.append(mlp_branch(branch.mlp, f"{path}.norm", f"{path}.mlp", f"{path}.ls"))
    return [branch for branch in found if branch is not None]


def _attention(attention: Any, norm: str, path: str, scale: str) -> Branch | None:
    if type(attention) is not OpenedAttention:
        return None
    if attention.gate is not None:
        return Branch(norm, scale, (f"{path}.qkv", f"{path}.gate"), None, f"{path}.proj")
    return Branch(norm, scale, (f"{path}.qkv",), f"{path}.norm", f"{path}.proj")


def mlp_branch(mlp: Any, norm: str, path: str, scale: str) -> Branch | None:
    """Return the branch of an MLP; None where it is of another kind than timm's usual ones."""
    return Branch(norm, scale, first_linears(mlp, path), f"{path}.norm", f"{path}.fc2") if type(mlp) in MLPS else None


def first_linears(mlp: nn.Module, path: str) -> tuple[str, ...]:
    """Return the names of the linear layers that read an MLP's input: `fc1`, or the two halves of a SwiGLU."""
    return tuple(f"{path}.{part}" for part in ("fc1", "fc1_g", "fc1_x") if hasattr(mlp, part))


def norm_readers(model: Any) -> list[NormReaders]:
    """Return the norms before attention and MLP, those inside them, and the last ones; norms of q and k feed no linear layer."""
    return readers_of(model, branches(model))


def readers_of(model: Any, blocks: Sequence[Branch]) -> list[NormReaders]:
    """Return the norms of these branches, and the last ones of a model that pools and classifies as ViTs do."""
    sites: list[NormReaders] = []
    for branch in blocks:
        sites += site(model, branch.norm, branch.readers)
        sites += site(model, branch.inner, (branch.writer,)) if branch.inner else []
    pool = getattr(model, "attn_pool", None)
    if pool is None:
        return sites + last_norm(model)
    inside = site(model, "attn_pool.norm", first_linears(pool.mlp, "attn_pool.mlp")) if pool.mlp is not None else []
    return sites + last_norm(model) + inside + site(model, "fc_norm", heads(model))


def last_norm(model: Any) -> list[NormReaders]:
    """Return the norm behind the blocks that the heads read, or in their place the keys and values of a pooling by attention."""
    pool = getattr(model, "attn_pool", None)
    if pool is not None:
        return site(model, "norm", ("attn_pool.kv",)) if pool.pos_embed is None else []
    is_idle = type(model) is VisionTransformerDistilled  # its forward passes fc_norm by
    return ([] if is_idle else site(model, "fc_norm", heads(model))) or site(model, "norm", heads(model))


def heads(model: Any) -> tuple[str, ...]:
    """Return the names of the classifiers; none where the model gives features."""
    return tuple(name for name in ("head", "head_dist") if hasattr(getattr(model, name, None), "weight"))


def site(model: nn.Module, norm: str, readers: tuple[str, ...]) -> list[NormReaders]:
    """One site, or none where nothing reads, or where no norm is (Identity, or a pair that `prepare` put there)."""
    is_norm = hasattr(model.get_submodule(norm), "weight")
    return [NormReaders(norm, readers, shifts=True)] if readers and is_norm else []


def mlp_sites(model: nn.Module) -> list[MlpSite]:
    """Return the hidden layers of timm's MLPs, whatever their activation: GELU, its quick form, a gate."""
    return [MlpSite(f"{name}.norm", f"{name}.fc2") for name, part in model.named_modules() if type(part) in MLPS]


def layer_scales(model: Any) -> list[LayerScaleSite]:
    """Return LayerScale behind each attention and each MLP."""
    return scales_of(model, branches(model))


def scales_of(model: Any, blocks: Sequence[Branch]) -> list[LayerScaleSite]:
    """Return the scales of these branches, submodules or parameters of a block."""

    def is_scale(name: str) -> bool:
        path, _, last = name.rpartition(".")
        part = getattr(model.get_submodule(path), last)
        return isinstance(part, nn.Parameter) or hasattr(part, "gamma")

    return [LayerScaleSite(branch.scale, branch.writer) for branch in blocks if is_scale(branch.scale)]


def token_biases(model: Any) -> list[TokenBias]:
    """Return the position embedding, which is added to every patch."""
    if model.pos_embed is None or not isinstance(model.patch_embed.norm, nn.Identity):
        return []
    return [TokenBias("patch_embed.proj", "pos_embed", first=0 if model.no_embed_class else model.num_prefix_tokens)]
