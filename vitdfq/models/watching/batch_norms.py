"""The BatchNorms of a model whose structure nobody wrote down, and the layers beside them, found by watching one forward.

On the meta device every operator is seen with the storages that it reads. A BatchNorm folds into the layer that wrote its input
where nothing else reads that storage, and into the layer that reads its output where nothing else does. Between the two stand
at most views that keep the channels apart: what was copied, padded or added has another storage, and folds nowhere.
"""

from collections import Counter, defaultdict
from typing import Any

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vitdfq.models.family import BatchNormSite
from vitdfq.models.record import hooked
from vitdfq.models.sites import PaddedConv2d
from vitdfq.models.storage import without_storage

# Exact types: a subclass may compute with other weights than those that it holds (StdConv2d standardizes them first).
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, BatchNormAct2d)
LAYERS = (nn.Linear, nn.Conv2d)
WRITERS = (*LAYERS, Conv2dSame, PaddedConv2d)  # what it pads it reads; its output is a convolution's


@torch.no_grad()
def watched_batch_norms(model: Any) -> list[BatchNormSite]:
    """Return the BatchNorms that fold into one layer each, in order of registration; all others have to stay.

    Args:
        model: of timm, not changed; the `input_size` of its `pretrained_cfg` is that of its images.
    """
    if not any(type(part) in BATCH_NORMS for part in model.modules()):
        return []
    forward = _Forward(without_storage(model).eval())
    sites = [forward.site(norm) for norm in forward.names if type(norm) in BATCH_NORMS]
    return [site for site in sites if site is not None]


class _Forward(TorchDispatchMode):
    """One watched forward: what each module was given and wrote, and which modules' own operators read each storage."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.names: dict[nn.Module, str] = {}
        self.held: Counter[nn.Module] = Counter()  # under how many names: which of them is called is not known
        for name, part in model.named_modules(remove_duplicate=False):
            self.names.setdefault(part, name)
            self.held[part] += 1
        self.calls: Counter[nn.Module] = Counter()
        self.io: dict[nn.Module, tuple[Tensor, Tensor]] = {}  # input and output of the last call
        self.readers: defaultdict[int, set[nn.Module | None]] = defaultdict(set)  # by id of a storage
        self.running: list[nn.Module] = []
        self.kept: list[object] = []  # ids of what is dropped would be used again
        images = next(model.parameters()).new_zeros(2, *model.pretrained_cfg["input_size"])
        with hooked((register_module_forward_pre_hook(self._enter), register_module_forward_hook(self._leave))), self:
            output = model(images)
        for value in _tensors(output):
            self.readers[_storage(value)].add(None)  # the caller
        self.writers = {_storage(self.io[part][1]): part for part in self.io if type(part) in WRITERS}
        self.layers = [part for part in self.io if type(part) in LAYERS]

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.running.append(module)

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        self.running.pop()
        self.calls[module] += 1
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            self.io[module] = args[0], output

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given, made = _tensors((args, kwargs)), _tensors(output)
        self.kept += [part for value in (*given, *made) for part in (value, value.untyped_storage())]
        for value in given:
            aliases = [result for result in made if _storage(result) == _storage(value)]
            if not aliases or any(result is value for result in aliases):  # not a view, or written in place
                self.readers[_storage(value)].add(self.running[-1] if self.running else None)
        return output

    def site(self, norm: Any) -> BatchNormSite | None:
        """Return the layer into which a BatchNorm folds, if there is one."""
        if norm not in self.io or not self._is_alone(norm) or norm.running_mean is None:
            return None
        given, written = self.io[norm]
        layer = self.writers.get(_storage(given))
        if layer is not None and self._is_between(given, layer, norm) and _same(self.io[layer][1], layer, given, norm):
            return BatchNormSite(self.names[norm], self.names[layer], follows=True)
        if any(not isinstance(part, nn.Identity) for part in norm.children()):  # an activation: the layer reads no affine
            return None
        for layer in self.layers:
            value = self.io[layer][0]
            is_reader = _storage(value) == _storage(written) and not _pads(layer)
            if is_reader and self._is_between(written, norm, layer) and _same(value, layer, written, norm):
                return BatchNormSite(self.names[norm], self.names[layer], follows=False)
        return None

    def _is_between(self, value: Tensor, first: nn.Module, second: nn.Module) -> bool:
        """Whether only `second` reads what `first` wrote, and each of the two is alone."""
        return self.readers[_storage(value)] - {first} == {second} and self._is_alone(first) and self._is_alone(second)

    def _is_alone(self, module: nn.Module) -> bool:
        """Whether a module has one name and was called once, and nothing else reads its parameters and buffers."""
        state = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        others = set().union(*(self.readers[_storage(value)] for value in state)) - {module}
        return self.held[module] == self.calls[module] == 1 and not others


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _storage(value: Tensor) -> int:
    return id(value.untyped_storage())


def _pads(layer: Any) -> bool:
    """Whether a layer puts zeros beside its input: the shift of a norm would not reach them."""
    return isinstance(layer, nn.Conv2d) and layer.padding != "valid" and any(side != 0 for side in layer.padding)


def _same(beside: Tensor, layer: nn.Module, normed: Tensor, norm: nn.Module) -> bool:
    """Whether the channels of a layer's input or output and those of a norm's are the same, in one storage."""
    channels = _channels(beside, -1 if isinstance(layer, nn.Linear) else -3)
    return channels is not None and channels == _channels(normed, 1)


def _channels(value: Tensor, dim: int) -> tuple[int, int, int] | None:
    """Return (how many, step, start) such that the element at place p of the storage is of channel ((p - start) // step) % n.

    None: this is not true of the tensor.
    """
    count, step = value.shape[dim], value.stride(dim)
    others = [(n, stride) for i, (n, stride) in enumerate(zip(value.shape, value.stride(), strict=True)) if i != dim % value.ndim]
    inner = [(n, stride) for n, stride in others if n > 1 and stride % (count * step)] if step else others
    fits = sum((n - 1) * stride for n, stride in inner) < step
    return (count, step, int(value.storage_offset())) if fits else None
