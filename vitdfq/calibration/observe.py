"""Range fitting: weight quantizers on their weights, activation quantizers on activations of the quantized student."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of
from vitdfq.common.lookup import lookup
from vitdfq.common.options import check_counts
from vitdfq.models.record import hooked
from vitdfq.quantization.clip_search import Cost
from vitdfq.quantization.modules import QuantMatMul, QuantSite, QuantWeighted, bits_of, named_sites, weighted_modules
from vitdfq.runtime.run import Progress, Run
from vitdfq.synthesis import procedural_kinds

FitHook = Callable[[Any, Any], None]  # a forward pre-hook

NUM_COVER, COVER_SEED = 16, 1_500_007

MEASURES = {"values": False, "outputs": True}  # name -> whether the error is that of the product which reads the value


@dataclass(frozen=True)
class ObserveOptions:
    """Options of `observe`.

    Attributes:
        num_images: the number of images used, from the first, in one pass; fewer need less memory.
        num_cover: the number of procedural images of each kind that ranges cover besides. None: 16 where activations have 8 bits,
            which resolve a wider range without harm, so that no choice of images can clip others; else 0.
        measure: the error that a range is chosen by. "values": the squared error of the values. "outputs": for softmax the error
            of its product with the values; for inputs of linear layers the squared error weighted by the energy of the weight
            column that reads each channel, which is the error of the layer's output if the channels' errors are uncorrelated.

    Raises:
        ValueError: an unknown measure.
    """

    num_images: int = 256
    num_cover: int | None = None
    measure: str = "outputs"

    def __post_init__(self) -> None:
        check_counts(self, "num_images")
        if self.num_cover is not None and self.num_cover < 0:
            raise ValueError(f"num_cover must be at least 0, got {self.num_cover}")
        lookup(self.measure, MEASURES, "measure")


@torch.no_grad()
def observe(
    student: nn.Module, teacher: nn.Module, images: Tensor, options: ObserveOptions | None = None, *, run: Run | None = None
) -> None:
    """Set all scales by a search for the smallest error, in one forward pass.

    An activation quantizer is fitted when its input is computed, and quantizes this input. The input of each site thus contains
    the quantization errors of all sites before it ("sequential" calibration).

    A range is searched on a site's input from all images, which pass at once. The device holds a few copies of the largest input
    of a site. For ViT-B/16 that is attention, with images x 12 x 197 x 197 x 4 bytes: 480 MB for each copy at 256 images.

    Args:
        student: changed in place.
        teacher: renders the procedural images; ranges need no targets.
        images: (N, 3, H, W).
        options: see `ObserveOptions`.
        run: receives the progress.

    Raises:
        ValueError: activations that are NaN or infinite.
    """
    options, run = options or ObserveOptions(), run or Run()
    images = torch.cat([images[: options.num_images], *_cover(student, teacher, images, options.num_cover)])
    with run.progress("observe", total=count_fits(student)) as bar:
        fit_all(student, images, bar, by_outputs=MEASURES[options.measure])


def _cover(student: nn.Module, teacher: nn.Module, images: Tensor, count: int | None) -> list[Tensor]:
    """Procedural images of every kind, `count` of each; see `ObserveOptions.num_cover`."""
    if count is None:
        count = NUM_COVER if bits_of(student)["activation_bits"] == 8 else 0
    return [cover.to(images) for cover in procedural_kinds(teacher, count, COVER_SEED).values()] if count else []


def count_fits(student: nn.Module) -> int:
    """The number of progress steps of `fit_all`."""
    return len(weighted_modules(student)) + len(_parts(student))


def fit_all(student: nn.Module, images: Tensor, bar: Progress, *, by_outputs: bool = True) -> None:
    """Fit the weight quantizers, then the operand quantizers of each site while images (N, 3, H, W) pass; `bar` counts both."""
    for module in weighted_modules(student):
        if module.weight_quantizer.bits is not None and not module.weight_quantizer.guided:
            module.weight_quantizer.fit(module.weight.flatten(1))
        bar.advance()
    parts = _parts(student)
    fits = [_fit_product(by_outputs) if isinstance(part, QuantMatMul) else _fit_layer(by_outputs) for part in parts]
    with hooked(part.register_forward_pre_hook(_counted(fit, bar)) for part, fit in zip(parts, fits, strict=True)):
        student(images.to(device_of(student)))


def _parts(student: nn.Module) -> list[QuantSite]:
    return list(named_sites(student).values())


def _counted(fit: FitHook, bar: Progress) -> FitHook:
    def fit_and_count(part: nn.Module, operands: Any) -> None:
        fit(part, operands)
        bar.advance()

    return fit_and_count


def _fit_layer(by_outputs: bool) -> FitHook:
    def fit(layer: QuantWeighted, inputs: tuple[Tensor]) -> None:
        quantizer: Any = layer.input_quantizer
        weight_quantizer: Any = layer.weight_quantizer
        x = layer.shifted(inputs[0])
        weighted = by_outputs or (quantizer.guided and "cost" not in quantizer.measures)
        importance = layer.column_energy() if weighted and "importance" in quantizer.measures else None
        if importance is not None:
            quantizer.fit(x, importance=importance)
        elif quantizer.guided:
            wanted = layer.multiply(x, layer.weight)
            quantizer.fit(x, cost=lambda rounded: (layer.multiply(rounded, layer.weight) - wanted).square().sum())
        elif quantizer.bits is not None:
            quantizer.fit(x)
        if weight_quantizer.guided:
            rows = layer.input_rows(quantizer(x))
            weight_quantizer.fit(layer.weight.flatten(1), gram=rows.T @ rows / len(rows))

    return fit


def _fit_product(by_outputs: bool) -> FitHook:
    """Fit each operand by the error of its values or, if `by_outputs`, of its product with the other operand unquantized."""

    def fit(product: Any, operands: tuple[Tensor, Tensor]) -> None:
        left, right = operands
        left = left if product.left_shift is None else left - product.left_shift

        def error_of(multiplied: Callable[[Tensor], Tensor]) -> Cost:
            wanted = left @ right
            return lambda rounded: (multiplied(rounded) - wanted).square().sum()

        choices = (
            (product.right_quantizer, right, lambda rounded: left @ rounded),
            (product.left_quantizer, left, lambda rounded: product.multiply(rounded, right)),
        )
        for quantizer, x, multiplied in choices:
            if quantizer.bits is None:
                continue
            # A grid of equal steps is fitted on values unless its observer is guided: the product's error would hardly differ.
            guided = quantizer.guided or (by_outputs and not quantizer.has_equal_steps)
            quantizer.fit(x, cost=error_of(multiplied) if guided else None)

    return fit
