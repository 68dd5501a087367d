"""The contract of a quantizer.

A new quantizer is one file with one class below `Quantizer` that defines `fit`, `forward`, `codes` and `decode`. All other
properties that the package reads have defaults here: such a quantizer can stand everywhere, is stored as it is, stays simulated
in an integer student, and becomes a table of levels in ONNX. A class overrides a default where it has more to offer.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

from torch import Tensor, nn

from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.quantizers.forms import Affine, Boundaries, IntegerForm, OnnxForm, Traced

# Kinds of values that a quantizer can be put on, and how a message calls them.
VALUES = {
    "weights": "weights",
    "inputs": "this input",  # of a linear layer or convolution
    "gelu": "this input",  # of a linear layer that reads GELU's output
    "operands": "operands of attention",  # queries, keys, values
    "softmax": "the output of softmax",
}


class Quantizer(nn.Module, ABC):
    """Rounds values to a grid of at most 2^bits levels.

    The contract, checked for every entry of `QUANTIZERS` by tests/quantization/test_quantizers.py: `forward` is idempotent and
    monotone, keeps shape, dtype, zero and NaN, and passes gradients straight through; `decode(codes(x))` equals `forward(x)` bit
    for bit; all state is in buffers, NaN until `fit`. Dynamic classes are not among the entries, and differ: see theirs.

    Args:
        bits: 2 to 8.
        shape: of the settings, see `granularities`.

    Raises:
        ValueError: a shape that the class does not have.
    """

    # Properties of the class: they are read before an instance exists.
    suits: ClassVar[frozenset[str]] = frozenset(VALUES)  # the kinds of values that it may round
    options: ClassVar[frozenset[str]] = frozenset()  # of "symmetric", "observer", "group_size": what `__init__` takes
    # What one set of settings may stand for, by its shape: "tensor" (), "head" (H, 1, 1), "channel" (C, 1), "group" (C, groups).
    # Without "channel" a weight has one set.
    granularities: ClassVar[frozenset[str]] = frozenset({"tensor"})
    dynamic: ClassVar["Callable[..., Quantizer] | None"] = None  # the class whose ranges follow the values as they arrive
    by_prefix: ClassVar["Callable[..., Quantizer] | None"] = None  # the class with a range for each token in front of the patches

    # Properties of an instance; a subclass sets its own where they differ.
    bits: int | None  # None: the values stay in float
    symmetric: bool = False  # zero is on the middle code
    has_equal_steps: bool = False  # a constant may be subtracted from the values first
    needs_fit: bool = True  # False: `fit` chooses nothing
    guided: bool = False  # `fit` needs one of its measures
    measures: frozenset[str] = frozenset({"cost"})  # keywords of `fit`: "cost", and where it takes them "gram", "importance"
    is_dynamic: bool = False  # ranges follow the values, so that codes alone do not tell what they mean
    trained: str | None = None  # the name of a buffer of positive factors of the scale, to which `forward` has a gradient

    def __init__(self, bits: int | None, *, shape: tuple[int, ...] = ()) -> None:
        super().__init__()
        if shape != () and self.granularities == {"tensor"}:
            raise ValueError(f"{type(self).__name__} quantizers are per tensor")
        self.bits = bits

    @abstractmethod
    def fit(self, x: Tensor, *, cost: Cost | None = None) -> None:
        """Choose the settings for values `x`, any shape, or (rows, columns) of a weight.

        Args:
            x: the values to be quantized.
            cost: the error, 0-d, of a quantized `x` of the same shape and dtype, for example that of a product that reads it.
                The sum of squared errors if not given.

        Raises:
            ValueError: `x` is empty, or holds NaN, infinity, or values that the grid cannot hold; a cost that is NaN.
        """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Fake quantization: the nearest level of each value, same shape and dtype; straight-through gradient."""

    @abstractmethod
    def codes(self, x: Tensor) -> Tensor:
        """Integer codes 0..2^bits - 1 of `x`, same shape, int32."""

    @abstractmethod
    def decode(self, codes: Tensor) -> Tensor:
        """Real values of integer codes, same shape; equals `forward` on the values that the codes came from."""

    @property
    def is_fitted(self) -> bool:
        return all(bool(value.isfinite().all()) for value in self.buffers())

    @property
    def affine(self) -> Affine | None:
        """The grid, if its whole state is the buffers `scale` and `zero_point`: checkpoints and ONNX pack the codes of weights
        on such a grid, and GPTQ and AdaRound round them. None: the weight is stored as the float values of its levels."""
        return None

    def int8_planes(self) -> IntegerForm | None:
        """How activations on this grid become int8 values. None: the site stays simulated in an integer student."""
        return None

    def onnx_form(self) -> OnnxForm:
        """How the quantizer of an activation is written in ONNX."""
        return Boundaries()

    def check(self) -> None:
        """Check the settings that were read from a file; that they are finite is checked elsewhere.

        Raises:
            ValueError: settings that `fit` cannot have chosen; the message starts with the buffer's name.
        """

    def extra_repr(self) -> str:
        return f"bits={self.bits}"


class Unquantized(Quantizer):
    """Stands where values are left in float; it has no state."""

    bits: None
    has_equal_steps = True
    needs_fit = False

    def __init__(self) -> None:
        super().__init__(None)

    def fit(self, x: Tensor, *, cost: Cost | None = None) -> None:
        """Nothing to choose."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def codes(self, x: Tensor) -> Tensor:
        raise ValueError("values that are left in float have no codes")

    def decode(self, codes: Tensor) -> Tensor:
        raise ValueError("values that are left in float have no codes")

    def onnx_form(self) -> OnnxForm:
        return Traced()


def require_finite(x: Tensor, *, title: str = "", negative: bool = True) -> None:
    """Raise ValueError if values to fit on hold NaN, infinity or, where they may not be negative, negative ones.

    Args:
        x: the values.
        title: what the message calls the quantizer: "logarithmic".
        negative: whether `x` may hold negative values.
    """
    if not x.isfinite().all() or (not negative and (x < 0).any()):
        kind = "NaN or infinite" if negative else "negative, NaN or infinite"
        raise ValueError(f"cannot fit a {title + ' ' if title else ''}quantizer on values that are {kind}")


def require_positive(scale: Tensor) -> None:
    """Raise ValueError unless all values of a buffer `scale` are positive."""
    if not (scale > 0).all():
        raise ValueError("scale is not positive")


def require_zero_point(zero_point: Tensor, bits: int) -> None:
    """Raise ValueError unless all values of a buffer `zero_point` are codes."""
    if not ((zero_point == zero_point.round()) & (zero_point >= 0) & (zero_point < 2**bits)).all():
        raise ValueError(f"zero_point is no code of {bits} bits")
