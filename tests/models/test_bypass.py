"""No product goes around a site: what multiplies an activation is a layer or a place that `quantize` replaces.

timm multiplies with `self.qkv.weight` in three of its attentions: a quantized layer would be passed by, and nobody would see it.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from architectures import ARCHITECTURES, randomized, some_images
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from vitdfq.models import MatMul, open_model, record
from vitdfq.quantization import sites

PRODUCTS = {
    *(torch.matmul, torch.mm, torch.bmm, torch.einsum, torch.addmm, torch.baddbmm),
    *(torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.__rmatmul__, torch.Tensor.mm, torch.Tensor.bmm),
    *(F.linear, F.conv2d, F.bilinear, F.scaled_dot_product_attention, torch.conv2d),
}


class Watch(TorchFunctionMode):
    """Count, by the innermost running module, the products in which an operand depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.found: Counter[nn.Module] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        tensors = [part for part in (*args, *(kwargs or {}).values()) if isinstance(part, torch.Tensor)]
        if func in PRODUCTS and any(part.requires_grad for part in tensors):
            self.found[self.running[-1]] += 1
        return func(*args, **(kwargs or {}))

    @contextmanager
    def watching(self) -> Iterator[None]:
        enter = register_module_forward_pre_hook(lambda module, args: self.running.append(module))
        leave = register_module_forward_hook(lambda module, args, output: self.running.remove(module))
        try:
            with self:
                yield
        finally:
            enter.remove()
            leave.remove()


def products_by_module(model: nn.Module) -> Counter[nn.Module]:
    watch, images = Watch(), some_images(model).requires_grad_()
    with watch.watching():
        model(images)
    return watch.found


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_product_is_in_a_site(kind):
    model = randomized(kind)
    open_model(model)
    with record(model, [name for name, part in model.named_modules() if isinstance(part, MatMul)]):  # not fused, as in a student
        found = products_by_module(model)
    names, places = {part: name for name, part in model.named_modules()}, sites(model)
    assert {names[part] for part in found} <= set(places)
    latent = [name for name in places if name.endswith("attn_pool.q")]  # multiplies what is learned, not the image
    assert {names[part]: count for part, count in found.items()} == dict.fromkeys(set(places) - set(latent), 1)


@pytest.mark.parametrize("kind", ["eva", "beit", "swin_v2"])
def test_timms_own_forward_goes_around_qkv(kind):
    """The planted fault: what the test above has to see."""
    model = randomized(kind)
    found, places = products_by_module(model), sites(model)
    missed = [name for name, part in places.items() if part not in found and "cpb_mlp" not in name]
    assert missed and all(name.endswith(".qkv") for name in missed)
