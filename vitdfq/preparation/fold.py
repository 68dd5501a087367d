"""Fold what is linear into the linear layer beside it."""

import torch
from torch import nn


@torch.no_grad()
def fold_layer_scale(model: nn.Module) -> None:
    """Multiply LayerScale into the Linear that feeds it (attention's `proj`, the MLP's `fc2`), in place.

    A block computes x + gamma * (W y + b); gamma becomes part of W and b, and the block's `ls1`, `ls2` become Identity. The
    gain is one less float operation at run time; per-channel weight scales absorb gamma exactly. Models without LayerScale
    are left as they are.
    """
    for block in model.modules():
        for scale_name, linear_of in (("ls1", _attention_output), ("ls2", _mlp_output)):
            gamma = getattr(getattr(block, scale_name, None), "gamma", None)
            if gamma is None:
                continue
            linear = linear_of(block)
            linear.weight.mul_(gamma[:, None])
            if linear.bias is not None:
                linear.bias.mul_(gamma)
            setattr(block, scale_name, nn.Identity())


def _attention_output(block: nn.Module) -> nn.Linear:
    return block.attn.proj


def _mlp_output(block: nn.Module) -> nn.Linear:
    return block.mlp.fc2
