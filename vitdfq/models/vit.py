"""ViT, DeiT and their kin: registers, LayerScale, QK-norm, gated and scaled attention, any pooling, two heads or none."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from timm.layers.attention import Attention
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitdfq.models.attention import OpenedSite, swap
from vitdfq.models.family import AttentionSite, Family, Projections, Rows, Unit
from vitdfq.models.vit_attention import OpenedAttention, OpenedLatentPool
from vitdfq.models.vit_blocks import layer_scales, mlp_sites, norm_readers, token_biases
from vitdfq.models.vit_stream import ROTATION

HEAD = ("norm", "attn_pool", "fc_norm", "head_drop", "head", "head_dist")  # what stands behind the blocks; no model has all


def matches(model: Any) -> bool:
    # Exact types: a subclass, or a convolutional stem as embedding, may have another forward than the chain below.
    is_vit = type(model) in (VisionTransformer, VisionTransformerDistilled)
    return is_vit and type(model.patch_embed) is PatchEmbed


def open_attentions(model: Any) -> None:
    swap(model, Attention, OpenedAttention)
    swap(model, AttentionPoolLatent, OpenedLatentPool)


def units(model: Any) -> list[Unit]:
    """Return "embed", "blocks.0" ..., "head" (final norm, pooling and classifiers)."""

    def embed(x: Tensor) -> Tensor:
        return model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(x))))

    def block(index: int, x: Tensor) -> Tensor:
        return model.blocks[index](x)

    return block_chain(model, embed, block, (model.patch_embed, model.pos_drop, model.patch_drop, model.norm_pre))


def block_chain(
    model: Any,
    embed: Callable[[Tensor], Tensor],
    block: Callable[[int, Tensor], Tensor],
    before: Sequence[nn.Module | None],
) -> list[Unit]:
    """Return the chain of a model that runs its blocks in turn, and norms, pools and classifies as ViTs do.

    Args:
        model: with `blocks`, `norm` and `forward_head`.
        embed: images to tokens.
        block: (index, tokens) to tokens.
        before: submodules that belong to "embed"; None for one that this model does without.
    """

    def head(x: Tensor) -> Tensor:
        return model.forward_head(model.norm(x))

    def present(modules: Iterable[nn.Module | None]) -> tuple[nn.Module, ...]:
        return tuple(module for module in modules if module is not None)

    return [
        Unit("embed", embed, present(before)),
        *(Unit(f"blocks.{i}", partial(block, i), (model.blocks[i],)) for i in range(len(model.blocks))),
        Unit("head", head, present(getattr(model, name, None) for name in HEAD)),
    ]


def attention_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions in order of depth: a block of parallel attentions has several, a pooling by attention comes last."""
    return block_sites(model) + pool_sites(model, model.num_prefix_tokens if model.pool_include_prefix else 0)


def block_sites(model: Any) -> list[AttentionSite]:
    """Return the attentions of blocks that keep all tokens of a grid of patches."""
    return [
        AttentionSite(
            name=name,
            depth=depth,
            num_heads=attention.num_heads,
            grid=tuple(model.patch_embed.grid_size),
            num_prefix_tokens=model.num_prefix_tokens,
            num_windows=1,
            class_row=model.global_pool == "token",  # where the head averages, nothing trains the class token's row
        )
        for depth, name, attention in opened_sites(model)
    ]


def pool_sites(model: Any, num_prefix_tokens: int) -> list[AttentionSite]:
    """Return a pooling by attention, if there is one; it reads this number of tokens that are no patches."""
    pool = model.attn_pool
    if pool is None:
        return []
    return [
        AttentionSite(
            name="attn_pool",
            depth=len(model.blocks),
            num_heads=pool.num_heads,
            grid=tuple(model.patch_embed.grid_size),
            num_prefix_tokens=num_prefix_tokens,
            num_windows=1,
            class_row=True,  # the first learned query reads as a class token does
            query_grid=(1, pool.latent_len),
        ),
    ]


def projections(model: Any) -> list[Projections]:
    """Return what writes queries, keys and values: the thirds of `qkv`, and the layers of a pooling by attention."""
    sites = []
    for _, name, attention in opened_sites(model):
        assert isinstance(attention, OpenedAttention)
        reads_plain = isinstance(attention.norm, nn.Identity) and attention.gate is None
        sites.append(fused_projections(name, attention, f"{name}.proj" if reads_plain else None))
    return sites + pool_projections(model)


def fused_projections(name: str, attention: Any, reader: str | None) -> Projections:
    """Return what writes queries, keys and values of an attention with one `qkv`, which may norm queries and keys."""
    queries, keys, values = thirds(f"{name}.qkv", attention.num_heads * attention.key_dim)
    return Projections(
        queries=queries if isinstance(attention.q_norm, nn.Identity) else None,
        keys=keys,
        values=values,
        shifts=isinstance(attention.k_norm, nn.Identity),
        reader=reader,
    )


def pool_projections(model: Any) -> list[Projections]:
    """Return the layers of a pooling by attention, if there is one."""
    pool = model.attn_pool
    if pool is None:
        return []
    keys, values = thirds("attn_pool.kv", pool.num_heads * pool.head_dim)[:2]
    (queries, *_) = thirds("attn_pool.q", pool.num_heads * pool.head_dim)
    plain = isinstance(pool.q_norm, nn.Identity) and not isinstance(pool.q, nn.Identity)
    reader = None if isinstance(pool.proj, nn.Identity) else "attn_pool.proj"
    return [Projections(queries if plain else None, keys, values, shifts=isinstance(pool.k_norm, nn.Identity), reader=reader)]


def thirds(qkv: str, width: int) -> list[Rows]:
    """Return the rows of queries, of keys and of values where those of all heads follow each other."""
    return [Rows(qkv, tuple(range(start, start + width))) for start in (0, width, 2 * width)]


def opened_sites(model: Any) -> list[tuple[int, str, OpenedSite]]:
    """Return (index of the block, name, opened attention), in order of depth."""
    return [
        (depth, f"blocks.{depth}.{name}", attention)
        for depth, block in enumerate(model.blocks)
        for name, attention in block.named_modules()
        if isinstance(attention, OpenedSite)
    ]


def embedded_size(model: Any) -> tuple[int, int]:
    """Return the image size (height, width) that the patch embedding was built for."""
    height, width = model.patch_embed.img_size
    return height, width


VIT = Family(
    name="vit",
    examples="ViT, DeiT, DeiT-III, DINOv2, CLIP, SigLIP",
    matches=matches,
    open=open_attentions,
    attentions=(Attention, AttentionPoolLatent),
    units=units,
    attention_sites=attention_sites,
    projections=projections,
    image_size=embedded_size,
    final_norm="norm",
    token_source="patch_drop",
    norm_readers=norm_readers,
    mlp_sites=mlp_sites,
    layer_scales=layer_scales,
    token_biases=token_biases,
    rotation=ROTATION,
)
