"""Uniform grid: equally spaced levels, asymmetric or symmetric about zero."""

import math

import torch
from torch import Tensor

from vitdfq.common.lookup import lookup
from vitdfq.quantization.clip_search import Cost, search_rows, search_tensor
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.quantizers.affine import AffineQuantizer
from vitdfq.quantization.quantizers.base import require_finite, require_positive, require_zero_point
from vitdfq.quantization.quantizers.dynamic import DynamicUniform
from vitdfq.quantization.quantizers.forms import Affine, IntegerForm, OnnxForm, Traced
from vitdfq.quantization.quantizers.prefix import PrefixUniform

MEASURES = {  # granularity -> keywords of `fit`
    "tensor": frozenset({"cost", "importance"}),
    "head": frozenset({"importance"}),
    "channel": frozenset({"gram"}),
    "group": frozenset({"gram"}),
}


class Uniform(AffineQuantizer):
    """A uniform quantizer whose range minimizes an error of the values it was fitted on.

    Args:
        bits: 2 to 8.
        shape: of the scale. `()` is per tensor; `(H, 1, 1)` per head of an activation (..., H, N, d); `(C, 1)` per channel of a
            (C, ...) weight flattened to two dimensions; `(C, M / group_size)` per group of such a row, see `weight_shape`.
        symmetric: put zero on the middle code.
        group_size: so many consecutive values of a weight's row share a scale; None: the whole row does.
        observer: which ranges `fit` tries: "min_max", "percentile", "mse" (many fractions of the range), or "output_error": the
            ranges of "mse", and `fit` requires a measure of the error of the layer's output.

    Buffers `scale` and `zero_point` are NaN until `fit`, so that an uncalibrated model cannot pass for a calibrated one.

    Raises:
        ValueError: a shape, group size or observer that does not exist.
    """

    options = frozenset({"symmetric", "observer", "group_size"})
    granularities = frozenset(MEASURES)
    dynamic = DynamicUniform
    by_prefix = PrefixUniform
    scale: Tensor
    zero_point: Tensor

    def __init__(
        self,
        bits: int,
        *,
        shape: tuple[int, ...] = (),
        symmetric: bool = False,
        group_size: int | None = None,
        observer: str = "mse",
    ) -> None:
        super().__init__(bits, shape=shape)
        self.granularity = _granularity(shape, group_size)
        self.guided = lookup(observer, OBSERVERS, "observer").guided
        self.measures = MEASURES[self.granularity]
        self.trained = "scale" if self.granularity in ("tensor", "head") else None
        self.symmetric, self.group_size, self.observer = symmetric, group_size, observer
        self.register_buffer("scale", torch.full(shape, math.nan))
        self.register_buffer("zero_point", torch.full(shape, math.nan))

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost: Cost | None = None, gram: Tensor | None = None, importance: Tensor | None = None) -> None:
        """Choose scale and zero point for `x` by squared error, or by one of the measures.

        Args:
            x: any shape per tensor, (..., H, N, d) per head, (C, M) per channel or group.
            cost: for a per-tensor scale: the error (0-d) of a quantized `x`, same shape and dtype, for example that of a product
                that reads it. Some 17 candidates are tried; min-max is one of them.
            gram: for weights: (M, M) second moments of the inputs. The error is then that of the layer's output (groups: as if
                inputs of different groups were uncorrelated).
            importance: for activations: (C,) weights of the last dimension's channels.

        Raises:
            ValueError: `x` is empty, of the wrong shape, or holds NaN or infinity; a measure that does not go with the scale's
                shape; observer "output_error" without a measure.
        """
        self._check_values(x, cost, gram, importance)
        if self.granularity in ("channel", "group"):
            rows = x.float().reshape(-1, self.group_size or x.shape[1])
            if gram is not None and self.group_size:
                gram = _diagonal_blocks(gram, self.group_size)
            scale, zero_point = search_rows(rows, self.bits, self.symmetric, gram, observer=self.observer)
        else:
            heads = self.granularity == "head"
            scale, zero_point = search_tensor(
                x.detach(), self.bits, self.symmetric, importance, observer=self.observer, cost=cost, heads=heads
            )
        self.scale.copy_(scale.view_as(self.scale))
        self.zero_point.copy_(zero_point.view_as(self.zero_point))

    def qparams(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if not self.group_size:
            return self.scale, self.zero_point
        return self.scale.repeat_interleave(self.group_size, -1), self.zero_point.repeat_interleave(self.group_size, -1)

    @property
    def affine(self) -> Affine:
        return Affine(self.bits, self.scale, self.zero_point, self.symmetric, self.granularity, self.group_size)

    def int8_planes(self) -> IntegerForm | None:
        return self.affine if self.granularity in ("tensor", "head") else None

    def onnx_form(self) -> OnnxForm:
        return self.affine if self.granularity in ("tensor", "head") else Traced()

    def check(self) -> None:
        require_positive(self.scale)
        require_zero_point(self.zero_point, self.bits)

    def extra_repr(self) -> str:
        grid = "symmetric" if self.symmetric else "asymmetric"
        group = f" of {self.group_size}" if self.group_size else ""
        return f"bits={self.bits}, {grid}, per_{self.granularity}{group}, observer={self.observer}"

    def _check_values(self, x: Tensor, cost: Cost | None, gram: Tensor | None, importance: Tensor | None) -> None:
        if not x.numel():
            raise ValueError("cannot fit a quantizer on no values")
        require_finite(x)
        measures = {"cost": cost, "gram": gram, "importance": importance}
        given = [name for name, value in measures.items() if value is not None]
        for name in given:
            if name not in self.measures:
                raise ValueError(f"{name} does not go with a scale per {self.granularity}")
        if self.guided and not given:
            raise ValueError(f"observer {self.observer!r} needs gram=, importance= or cost=")
        if self.granularity == "head":
            fits, needed = x.ndim >= 3 and x.shape[-3] == len(self.scale), f"(..., {len(self.scale)}, N, d)"
        elif self.granularity in ("channel", "group"):
            rows, groups = self.scale.shape
            columns = groups * self.group_size if self.group_size else "M"
            fits = x.ndim == 2 and len(x) == rows and columns in ("M", x.shape[1])
            needed = f"({rows}, {columns})"
        else:
            return
        if not fits:
            raise ValueError(f"values have shape {tuple(x.shape)}; this scale needs {needed}")
        if gram is not None and gram.shape != (x.shape[1], x.shape[1]):
            raise ValueError(f"gram has shape {tuple(gram.shape)}; a weight {tuple(x.shape)} needs {(x.shape[1], x.shape[1])}")


def weight_shape(rows: int, columns: int, group_size: int | None = None) -> tuple[int, int]:
    """Return the scale's shape for a weight (rows, columns): one for each row, or for each `group_size` values of a row.

    Raises:
        ValueError: `group_size` does not divide the columns.
    """
    if group_size is None:
        return rows, 1
    if group_size < 1 or columns % group_size:
        raise ValueError(f"group_size {group_size} does not divide the {columns} inputs of this weight")
    return rows, columns // group_size


def _granularity(shape: tuple[int, ...], group_size: int | None) -> str:
    """What one scale stands for: "tensor", "head", "channel" or "group"."""
    if group_size is not None:
        if len(shape) == 2 and group_size >= 1:
            return "group"
        raise ValueError(f"group_size {group_size} with a scale of shape {shape}: groups are of weights, see weight_shape")
    if shape == ():
        return "tensor"
    if len(shape) == 3 and shape[1:] == (1, 1):
        return "head"
    if len(shape) == 2 and shape[1] == 1:
        return "channel"
    raise ValueError(f"no scale has shape {shape}; choices: (), (H, 1, 1), (C, 1), or (C, groups) with group_size")


def _diagonal_blocks(gram: Tensor, size: int) -> Tensor:
    """(M, M) -> (M / size, size, size): errors of different groups of a row are taken as uncorrelated."""
    return gram.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).movedim(-1, 0)
