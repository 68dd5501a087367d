"""A block of a ViT with integer sites that runs by the kernels of this folder where it can, else site by site."""

from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.attention import has_hooks
from vitdfq.models.sites import put
from vitdfq.quantization.integer.fused.form import BlockForm, block_form
from vitdfq.quantization.integer.fused.library import library
from vitdfq.quantization.integer.fused.packed import PackedBlock

TOKENS_AT_ONCE = 256  # of a thread: what they leave between two kernels stays in its cache


class FusedBlock(nn.Module):
    """timm's `Block`, whose submodules it takes over. They run where the kernels cannot, and while one of them has hooks."""

    def __init__(self, block: Any, form: BlockForm) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.form, self.parts = form, tuple(self.modules())[1:]
        self.largest_product = form.largest_product()
        self._packed: PackedBlock | None = None

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        kernels = library() if self._suits(x) else None
        if kernels is None:
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))
        kernels = kernels.for_products(self.largest_product)
        if self._packed is None or self._packed.kernels is not kernels:
            self._packed = PackedBlock(self.form, kernels)
        return self._packed(x, at_once=max(1, TOKENS_AT_ONCE * torch.get_num_threads() // x.shape[1]))

    def _suits(self, x: Tensor) -> bool:
        return x.device.type == "cpu" and x.dtype == torch.float32 and not any(map(has_hooks, self.parts))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # addresses: cannot be copied


def fuse_blocks(model: nn.Module) -> None:
    """Replace every block of a model with integer sites whose form the kernels know, in place."""
    for name, part in list(model.named_modules()):
        form = block_form(part)
        if form is not None:
            put(model, name, FusedBlock(part, form))
