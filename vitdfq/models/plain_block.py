"""Which blocks of a ViT consist of two norms, an attention and an MLP with GELU, and nothing else that computes."""

from typing import Any

from timm.layers.drop import DropPath
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block
from torch import nn

from vitdfq.models.vit_attention import OpenedAttention


def is_plain_block(block: Any) -> bool:
    """Return whether a block in eval mode computes x + attn(norm1(x)), then x + fc2(norm(gelu(fc1(norm2(x))))).

    No LayerScale, no norms of queries, keys or output, no gate. What `mlp.norm` is stays open.
    """
    if type(block) is not Block or type(block.attn) is not OpenedAttention or type(block.mlp) is not Mlp:
        return False
    attention, activation = block.attn, block.mlp.act
    idle = (block.ls1, block.ls2, attention.q_norm, attention.k_norm, attention.norm)
    return (
        all(type(part) is nn.Identity for part in idle)
        and all(type(part) in (nn.Identity, DropPath) for part in (block.drop_path1, block.drop_path2))
        and attention.gate is None
        and isinstance(activation, nn.GELU)
        and activation.approximate == "none"
    )
