"""Open a module that was watched multiplying activations: its products and softmaxes become submodules, all else stays its own.

The opened module runs a tape of what its forward did. Whatever timm's code does beside the products, such as rotary positions,
biases, masks, norms of queries and keys, or pooled queries, is a step like any other.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitdfq.models.attention import MatMul, Product, Softmax
from vitdfq.models.sites import is_layer
from vitdfq.models.watching import places
from vitdfq.models.watching.counting import MATRIX_PRODUCTS, REFLECTED, multiplications_of, operands_of
from vitdfq.models.watching.recorder import CannotRecordError, Recorder
from vitdfq.models.watching.tape import Own, Tape
from vitdfq.models.watching.watch import Call, tensors_in

SOFTMAXES = (F.softmax, torch.softmax, Tensor.softmax)
Sides = tuple[Tensor, Tensor]  # a tensor at both batch sizes


class OpenedByWatching(nn.Module):
    """The base, beside timm's own class, of modules whose forward is a tape."""

    tapes: list[Tape]  # one for each form of arguments
    steps: str  # a digest of their text: modules that compute alike have the same
    products: dict[str, Product]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        for tape in self.tapes:
            if tape.fits(args, kwargs):
                return tape.run(self, args, kwargs)
        given = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_in((args, kwargs)))
        raise ValueError(f"opened by watching for images of one size, a {type(self).__name__} does not take tensors of {given}")


OPENED: dict[type[nn.Module], type[OpenedByWatching]] = {}  # timm's class -> the opened one


def opened_class(kind: type[nn.Module]) -> type[OpenedByWatching]:
    """Return the class of opened modules of a kind; it has the kind's methods, but for `forward`."""
    if kind not in OPENED:
        OPENED[kind] = type(f"Opened{kind.__name__}", (OpenedByWatching, kind), {})
    return OPENED[kind]


def multiplies(call: Call) -> bool:
    """Return whether a module's own forward multiplies activations, other than as a layer or convolution."""
    if call.name is None or is_layer(call.target):
        return False
    return any(inner.target in REWRITERS and multiplications_of(inner) for inner in call.inner if inner.name is None)


def open_watched(part: nn.Module, calls: Sequence[tuple[Call, Call]], batches: tuple[int, int]) -> None:
    """Open a module in place, by all calls of it that were seen at two batch sizes.

    Raises:
        CannotRecordError: what it does at another batch size is not known; the module stays as it is.
    """
    tapes: dict[str, Tape] = {}
    new: dict[str, nn.Module] = {}
    products: dict[str, Product] = {}
    for small, large in calls:
        recorder = AttentionRecorder(small, large, batches, {name for name in dir(part) if not name.startswith("_")})
        tape = recorder.recorded()
        tapes.setdefault(f"{tape.shapes} {tape.args} {tape.kwargs}\n{tape.text()}", tape)
        new |= recorder.places
        for name, product in recorder.products.items():
            products[name] = product if products.get(name, product) == product else Product(reads_softmax=False)
    for name, place in new.items():
        part.add_module(name, place.train(part.training))
    opened: Any = part
    opened.__class__ = opened_class(type(part))
    opened.tapes, opened.products = list(tapes.values()), products
    opened.steps = hashlib.sha256("\n".join(tapes).encode()).hexdigest()


class AttentionRecorder(Recorder):
    """Records one call of a module, with its products and softmaxes as submodules.

    Attributes:
        places: name -> the submodule that the steps call.
        products: of those, the products.
    """

    def __init__(self, small: Call, large: Call, batches: tuple[int, int], taken: set[str]) -> None:
        super().__init__((small.target, large.target), (small.args, large.args), (small.kwargs, large.kwargs), batches)
        self.small, self.large, self.taken = small, large, taken
        self.places: dict[str, nn.Module] = {}
        self.products: dict[str, Product] = {}
        self.softmaxes = [call for call in large.inner if softmax_dim(call) is not None]
        self.scores = [self._scores(call) for call in self.softmaxes]

    def recorded(self) -> Tape:
        """Return the tape."""
        if len(self.small.inner) != len(self.large.inner):
            raise CannotRecordError("it does something else in a larger batch")
        for small, large in zip(self.small.inner, self.large.inner, strict=True):
            if small.name != large.name or (small.name is None and small.target != large.target):
                raise CannotRecordError("it does something else in a larger batch")
            rewrite = REWRITERS.get(large.target) if multiplications_of(large) else None
            if is_over_last(large) and self._feeds_product(large):
                names = self.place("softmax", Softmax()), self.place("class_row", places.FirstRow())
                self.rewritten(places.attention_maps, small, large, ([part.args[0]] for part in (small, large)), names)
            elif rewrite is None or not rewrite(self, small, large):
                self.add_call(small, large)
        return self.tape((self.small.output, self.large.output))

    def rewritten(self, target: Any, small: Call, large: Call, args: Any, parts: tuple[str, ...] = ()) -> bool:
        """Append a step in place of a call, with other positional arguments at both batch sizes; return True."""
        self.add(target, tuple(map(tuple, args)), ({}, {}), (small.output, large.output), parts)
        return True

    def place(self, name: str, module: nn.Module) -> str:
        """Return the name of a new place, with a number where the module has the name already."""
        number, free = 1, name
        while free in self.taken or free in self.places:
            number += 1
            free = f"{name}{number}"
        self.places[free] = module
        return free

    def product(self, large: Call, facts: Product) -> str:
        """Return the name of a new place for a product."""
        kind = "av" if facts.reads_softmax else "qk" if any(call is large for call in self.scores) else "product"
        name = self.place(kind, MatMul())
        self.products[name] = facts
        return name

    def reads_softmax(self, operand: Tensor, dim: int) -> bool:
        """Return whether an operand is what a softmax wrote, or a view of all of it, with rows along `dim` that sum to one."""
        return any(_is_view(operand, dim, call) for call in self.softmaxes)

    def _feeds_product(self, softmax: Call) -> bool:
        """Whether a product sums over what a softmax has normalized."""
        products = [call for call in self.large.inner if call.target in MATRIX_PRODUCTS and multiplications_of(call)]
        return any(
            _is_view(operand, dim, softmax)
            for call in products
            for operand, dim in zip(matrix_operands(call), (-1, -2), strict=True)
        )

    def _scores(self, softmax: Call) -> Call | None:
        """The last product in the module on which a softmax depends."""
        wanted = {id(tensor) for tensor in tensors_in((softmax.args, softmax.kwargs))}
        before = self.large.inner[: next(i for i, call in enumerate(self.large.inner) if call is softmax)]
        for call in reversed(before):
            if wanted & {id(tensor) for tensor in tensors_in(call.output)}:
                if call.target in MATRIX_PRODUCTS or call.target is torch.einsum:
                    return call
                wanted |= {id(tensor) for tensor in tensors_in((call.args, call.kwargs))}
        return None


def softmax_dim(call: Call) -> int | None:
    """Return the dimension over which a call takes a softmax; None for other calls."""
    if call.name is not None:
        return call.target.dim if type(call.target) is nn.Softmax else None
    if call.target not in SOFTMAXES:
        return None
    return call.kwargs["dim"] if "dim" in call.kwargs else call.args[1]


def is_over_last(call: Call) -> bool:
    """Return whether a call is a softmax over the last dimension, in the type of its input."""
    if softmax_dim(call) is None or not call.args:
        return False
    has_type = call.kwargs.get("dtype") is not None or any(isinstance(part, torch.dtype) for part in call.args)
    return not has_type and softmax_dim(call) in (-1, call.output.ndim - 1)


def _is_view(operand: Tensor, dim: int, softmax: Call) -> bool:
    over, written = softmax_dim(softmax), softmax.output
    if over is None or operand.untyped_storage() != written.untyped_storage() or operand.numel() != written.numel():
        return False
    return operand.stride(dim) == written.stride(over) and operand.shape[dim] == written.shape[over]


def product_facts(left: Sides, right: Sides, *, reads_softmax: bool) -> Product:
    """Return what is known of a product (B, heads, N, K) @ (B, heads, K, M); of one in another form only what it reads."""
    (small, large), (small_right, _) = left, right
    has_heads = small.ndim == small_right.ndim == 4 and small.shape[1] == small_right.shape[1] == large.shape[1]
    if not has_heads or small.shape[0] == large.shape[0]:
        return Product(reads_softmax)
    return Product(reads_softmax, small.shape[1], small.shape[-1] if small.shape[-1] == large.shape[-1] else None)


def matrix_operands(call: Call) -> tuple[Tensor, Tensor]:
    """Return left and right operand of a matrix product."""
    left, right = operands_of(call)[:2]
    return (right, left) if call.target is REFLECTED else (left, right)


def _matrix(recorder: AttentionRecorder, small: Call, large: Call) -> bool:
    operands = matrix_operands(small), matrix_operands(large)
    left, right = zip(*operands, strict=True)
    if left[1].ndim < 2 or right[1].ndim < 2:
        return False
    reads_softmax = recorder.reads_softmax(left[1], -1)
    if not reads_softmax and recorder.reads_softmax(right[1], -2):
        facts = product_facts((right[0].mT, right[1].mT), (left[0].mT, left[1].mT), reads_softmax=True)
        return recorder.rewritten(places.transposed_product, small, large, operands, (recorder.product(large, facts),))
    facts = product_facts(left, right, reads_softmax=reads_softmax)
    return recorder.rewritten(places.product, small, large, operands, (recorder.product(large, facts),))


def _einsum(recorder: AttentionRecorder, small: Call, large: Call) -> bool:
    equation, *tensors = large.args
    if len(tensors) != 2 or not all(isinstance(part, Tensor) for part in tensors) or "..." in equation or "->" not in equation:
        return False
    left, right, output = places.letters_of(equation)
    inner = [letter for letter in left if letter in right and letter not in output]
    is_summed_alone = (set(left) ^ set(right)) - set(output)
    if is_summed_alone or not inner or any(len(set(letters)) != len(letters) for letters in (left, right)):
        return False
    first, second = (
        len(inner) == 1 and recorder.reads_softmax(part, letters.index(inner[0]))
        for part, letters in zip(tensors, (left, right), strict=True)
    )
    args = small.args, large.args
    if second and not first:
        args = [(f"{right},{left}->{output}", b, a) for _, a, b in args]
    facts = Product(reads_softmax=first or second)
    return recorder.rewritten(places.einsum, small, large, args, (recorder.product(large, facts),))


def _attend(recorder: AttentionRecorder, small: Call, large: Call) -> bool:
    queries, keys, _ = zip(operands_of(small)[:3], operands_of(large)[:3], strict=True)
    names = recorder.place("qk", MatMul()), recorder.place("softmax", Softmax()), recorder.place("av", MatMul())
    row = recorder.place("class_row", places.FirstRow())
    facts = product_facts(queries, keys, reads_softmax=False)
    recorder.products |= {names[0]: facts, names[2]: Product(True, facts.num_heads)}
    kwargs = small.kwargs, large.kwargs
    recorder.add(places.attend, (small.args, large.args), kwargs, (small.output, large.output), (*names, row))
    return True


def _linear(recorder: AttentionRecorder, small: Call, large: Call) -> bool:
    """A weight is multiplied beside its layer: call the layer instead, and add the bias that it does not have."""
    inputs, weights, biases = zip(*(_arguments(call) for call in (small, large)), strict=True)
    weight, bias = recorder.pattern(*weights), recorder.pattern(*biases)
    owner, _, key = weight.name.rpartition(".") if isinstance(weight, Own) else ("", "", "")
    layer = recorder.small.target.get_submodule(owner)
    if not (owner and key == "weight" and isinstance(layer, nn.Linear) and is_layer(layer)):
        name = recorder.product(large, Product(reads_softmax=False))
        return recorder.rewritten(places.product_with_weight, small, large, zip(inputs, weights, biases, strict=True), (name,))
    if layer.bias is None:
        return recorder.rewritten(places.layer_and_bias, small, large, zip(inputs, biases, strict=True), (owner,))
    return bias == Own(f"{owner}.bias") and recorder.rewritten(owner, small, large, zip(inputs, strict=True))


def _arguments(call: Call) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return input, weight and bias of `F.linear`."""
    given = {**dict(zip(("input", "weight", "bias"), call.args, strict=False)), **call.kwargs}
    return given["input"], given["weight"], given.get("bias")


REWRITERS: dict[Any, Callable[[AttentionRecorder, Call, Call], bool]] = {
    **dict.fromkeys(MATRIX_PRODUCTS, _matrix),
    torch.einsum: _einsum,
    F.scaled_dot_product_attention: _attend,
    F.linear: _linear,
}
