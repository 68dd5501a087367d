"""How many multiplications a model takes for one image, and how many of them `quantize` reaches."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode

from vitdfq.models.attention import MatMul
from vitdfq.models.build import without_storage
from vitdfq.models.families import image_size
from vitdfq.models.record import hooked
from vitdfq.models.sites import is_layer


@dataclass(frozen=True)
class InFloat:
    """A module whose own forward multiplies activations, and which is no site: `quantize` leaves it in float."""

    name: str  # "stages.0.conv"; "" is the model itself
    kind: str  # "StdConv2d"
    count: int  # multiplications for one image


@dataclass(frozen=True)
class Multiplications:
    """The multiplications of activations by weights, and by each other, of one pass for one image (additions come with them)."""

    total: int
    in_sites: int  # of those, what `quantize` reaches
    in_float: tuple[InFloat, ...]  # the rest by module, largest first

    @property
    def share(self) -> float:
        """The share, 0 to 1, that `quantize` reaches."""
        return self.in_sites / self.total if self.total else 1.0

    def line(self) -> str:
        """Return "97.2 % of the multiplications can be quantized; in float: stem.conv (Conv2dSame) 2.8 %"."""
        text = f"{_percent(self.share)} of the multiplications can be quantized"
        if not self.in_float:
            return text
        shown = [f"{part.name or 'the model'} ({part.kind}) {_percent(part.count / self.total)}" for part in self.in_float[:3]]
        more = len(self.in_float) - len(shown)
        return f"{text}; in float: {', '.join(shown)}{f' and {more} smaller' if more else ''}"


def multiplications(model: nn.Module) -> Multiplications:
    """Count the multiplications of one pass for one image of `image_size`, on the meta device: nothing is computed.

    Counted are products of which an operand depends on the image. A fused attention counts as its two products.

    Args:
        model: an opened float model, of any family.
    """
    ghost = without_storage(model).eval().requires_grad_(False)
    names = {part: name for name, part in ghost.named_modules()}
    counter = _Counter()
    products = [part for part in ghost.modules() if isinstance(part, MatMul)]
    images = torch.zeros(1, 3, *image_size(model), device="meta", requires_grad=True)
    with hooked(part.register_forward_hook(_not_fused) for part in products), torch.enable_grad(), counter.watching():
        ghost(images)
    in_sites = sum(count for part, count in counter.found.items() if isinstance(part, MatMul) or is_layer(part))
    rest = [
        InFloat(names[part], type(part).__name__, count)
        for part, count in counter.found.most_common()
        if not (isinstance(part, MatMul) or is_layer(part))
    ]
    return Multiplications(sum(counter.found.values()), in_sites, tuple(rest))


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _not_fused(module: nn.Module, args: Any, output: Tensor) -> None:
    """A hook: an attention with hooks runs its products one by one."""


class _Counter(TorchFunctionMode):
    """Counts, by the innermost running module, the multiplications in which an operand depends on the images."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[nn.Module] = []
        self.found: Counter[nn.Module] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in COUNTS:
            return func(*args, **kwargs)
        output = func(*args, **kwargs)
        if isinstance(output, Tensor) and output.requires_grad:
            operands = [part for part in (*args, *kwargs.values()) if isinstance(part, Tensor | str)]
            self.found[self.running[-1]] += COUNTS[func](operands, output)
        return output

    @contextmanager
    def watching(self) -> Iterator[None]:
        enter = register_module_forward_pre_hook(lambda module, args: self.running.append(module))
        leave = register_module_forward_hook(lambda module, args, output: _drop(self.running), always_call=True)
        try:
            with self:
                yield
        finally:
            enter.remove()
            leave.remove()


def _drop(running: list[nn.Module]) -> None:
    running.pop()


def _matrix(operands: Any, output: Tensor) -> int:
    left = next(part for part in operands if isinstance(part, Tensor))
    return output.numel() * left.shape[-1]


def _matrix_reflected(operands: Any, output: Tensor) -> int:  # x.__rmatmul__(y) is y @ x
    return output.numel() * operands[1].shape[-1]


def _added_matrix(operands: Any, output: Tensor) -> int:
    return output.numel() * operands[1].shape[-1]


def _weighted(operands: Any, output: Tensor) -> int:
    return output.numel() * operands[1][0].numel()


def _transposed(operands: Any, output: Tensor) -> int:
    return operands[0].numel() * operands[1][0].numel()


def _fused(operands: Any, output: Tensor) -> int:
    query, key = operands[:2]
    return query.numel() * key.shape[-2] + output.numel() * key.shape[-2]


def _einsum(operands: Any, output: Tensor) -> int:
    equation, *tensors = operands
    sizes: dict[str, int] = {}
    for letters, tensor in zip(equation.replace(" ", "").partition("->")[0].split(","), tensors, strict=True):
        if "..." in letters:
            return output.numel() * max(tensor.shape[-1] for tensor in tensors)
        sizes |= dict(zip(letters, tensor.shape, strict=True))
    return math.prod(sizes.values()) if len(tensors) > 1 else 0


COUNTS: dict[Any, Callable[[Any, Tensor], int]] = {
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, torch.mv), _matrix),
    **dict.fromkeys((Tensor.matmul, Tensor.__matmul__, Tensor.mm, Tensor.bmm), _matrix),
    Tensor.__rmatmul__: _matrix_reflected,
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _added_matrix),
    **dict.fromkeys((F.linear, F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d), _weighted),
    **dict.fromkeys((F.conv_transpose2d, torch.conv_transpose2d), _transposed),
    F.scaled_dot_product_attention: _fused,
    torch.einsum: _einsum,
}
