"""A block of a ViT with integer sites that runs by the kernels of this folder where it can, else site by site."""

from ctypes import byref
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models.attention import has_hooks
from vitdfq.models.sites import put
from vitdfq.quantization.integer.fused.form import BlockForm, block_form
from vitdfq.quantization.integer.fused.library import Library, library
from vitdfq.quantization.integer.fused.packed import PackedBlock


class FusedBlock(nn.Module):
    """timm's `Block`, whose submodules it takes over. They run where the kernels cannot, and while one of them has hooks."""

    def __init__(self, block: Any, form: BlockForm) -> None:
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self.form = form
        self._packed: PackedBlock | None = None

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        if x.device.type == "cpu" and x.dtype == torch.float32 and not any(has_hooks(part) for part in self.modules()):
            kernels = library()
            if kernels is not None:
                return self._fused(x, kernels)
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _fused(self, x: Tensor, kernels: Library) -> Tensor:
        if self._packed is None:
            self._packed = PackedBlock(self.form, kernels)
        run = _Pass(self._packed, kernels, x)
        run.norm(None, "qkv")
        run.linear("qkv")
        run.attention()
        run.linear("proj")
        run.norm("proj", "fc1")
        run.linear("fc1")
        run.gelu()
        run.linear("fc2")
        run.norm("fc2", None)
        return run.x.view_as(x)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_packed": None}  # addresses: cannot be copied


class _Pass:
    """One pass through a block: the residual stream, a layer's product and a layer's codes, each overwritten again and again."""

    def __init__(self, block: PackedBlock, kernels: Library, x: Tensor) -> None:
        self.block, self.kernels = block, kernels
        self.images, self.tokens, self.width = x.shape
        self.rows, self.prefix = self.images * self.tokens, len(block.inputs["qkv"].factor) - 1
        self.x = x.reshape(self.rows, self.width).clone(memory_format=torch.contiguous_format)
        widest = max(len(weight.scale) for weight in block.weights.values())
        self.product = torch.empty(self.rows * widest)
        self.codes = torch.empty(self.rows * max(widest, self.width), dtype=kernels.code_type)

    def linear(self, name: str) -> None:
        """product = the layer's product with its codes."""
        weight = self.block.weights[name]
        inner, outputs = weight.numbers.shape[1] * self.kernels.group, len(weight.scale)
        addresses = (part.data_ptr() for part in (self.codes, weight.numbers, self.product))
        self.kernels.linear(*addresses, self.rows, inner, outputs, weight.scale.data_ptr(), weight.correction.data_ptr())

    def norm(self, layer: str | None, reader: str | None) -> None:
        """Add the output of `layer` to the residual stream; codes = the normalized stream, as `reader` rounds it."""
        block, index = self.block, 0 if reader == "qkv" else 1
        added: tuple[int | None, ...] = None, None, None
        if layer is not None:
            parts = self.product, block.inputs[layer].factor, block.weights[layer].bias
            added = tuple(part.data_ptr() for part in parts)
        codes = self.codes.data_ptr() if reader else None
        norm, gain, offset = block.norms[index], block.gains[index], block.offsets[index]
        self.kernels.add_norm(
            self.x.data_ptr(), *added, codes, *self._rows(), gain.data_ptr(), offset.data_ptr(), norm.center, norm.epsilon,
            byref(block.grids[reader]) if reader else None,
        )  # fmt: skip

    def gelu(self) -> None:
        """codes = the hidden layer after GELU and a transform, as `fc2` rounds it."""
        block, weight = self.block, self.block.weights["fc1"]
        addresses = (part.data_ptr() for part in (self.product, block.inputs["fc1"].factor, weight.bias, self.codes))
        signs = None if block.signs is None else block.signs.data_ptr()
        core = (None, 1) if block.core is None else (block.core.data_ptr(), len(block.core))
        rows, _, tokens, prefix = self._rows()
        self.kernels.gelu_codes(
            *addresses, rows, len(weight.scale), tokens, prefix, signs, *core, block.hidden_offset.data_ptr(),
            byref(block.grids["fc2"]),
        )  # fmt: skip

    def attention(self) -> None:
        """codes = attention's result for queries, keys and values in `product`, as `proj` rounds it."""
        form = type(self.block.attention).from_buffer_copy(self.block.attention)
        form.tokens = self.tokens
        self.kernels.attention(byref(form), self.product.data_ptr(), self.codes.data_ptr(), self.images)

    def _rows(self) -> tuple[int, int, int, int]:
        return self.rows, self.width, self.tokens, self.prefix


def fuse_blocks(model: nn.Module) -> None:
    """Replace every block of a model with integer sites whose form the kernels know, in place."""
    for name, part in list(model.named_modules()):
        form = block_form(part)
        if form is not None:
            put(model, name, FusedBlock(part, form))
