"""Per-channel mean subtraction: the part of an activation that all tokens share need not be quantized."""

import logging
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, float_pass, require_unfitted
from vitdfq.calibration.held_out import HeldOutValidation, worst_ratio
from vitdfq.calibration.observe import count_fits, fit_all
from vitdfq.common.options import check_counts
from vitdfq.models import Rows, attention_sites, projections
from vitdfq.quantization.modules import QuantLinear
from vitdfq.quantization.quantizers.dynamic import TokenUniform
from vitdfq.quantization.quantizers.uniform import Uniform
from vitdfq.runtime.run import Progress, Run
from vitdfq.synthesis import synthesize

logger = logging.getLogger(__name__)

PROBES = 16  # images of noise, and of those given, beside the guard's painted ones
TRIAL_IMAGES = 32
CLEAR_GAIN = 0.8  # share of the error left; near 1 rounding decides, and other images may well lose


@dataclass(frozen=True)
class CenterOptions:
    """Options of `center`.

    Attributes:
        num_images: at most so many of the images are used; means need few.
        guarded: keep the change only where it helps on several kinds of images; False: keep it in any case.
        seed: of noise and procedural images.
    """

    num_images: int = 64
    guarded: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "num_images")


@torch.no_grad()
def center(
    student: nn.Module, teacher: nn.Module, images: Tensor, options: CenterOptions | None = None, *, run: Run | None = None
) -> None:
    """Subtract the mean over tokens and images from what is quantized, and add its contribution to biases.

    The channel mean acts as a zero point for each channel. The float function stays, whatever the images.

    - Keys: softmax ignores a constant that is added to all keys of a head, so their mean leaves the bias that writes them.
    - Values: rows of softmax sum to one, so their mean moves to the bias of `proj`, if `proj` reads the values unchanged.
    - Queries: `QuantMatMul.left_shift`, whose scores are added back.
    - Inputs of linear layers: `QuantLinear.input_shift`, multiplied by the float weight and added to the bias.

    The remainder has a smaller range, so finer steps. That gains much where the mean is a property of the model (large
    pretrained ViTs). It loses much where the mean is a property of these images only, since other images then fall outside the
    range. To tell the two apart, the student is fitted with and without the change, and compared with the teacher on these
    images, on noise and on procedural images. Unless the change is clearly better on each kind, it is undone.

    This library's own.

    Args:
        student: changed in place; the quantizers must be fitted afterwards, by `observe`.
        teacher: the float model the student was made from.
        images: (N, 3, H, W).
        options: see `CenterOptions`.
        run: receives the progress.

    Raises:
        ValueError: quantizers that are fitted already.
    """
    options, run = options or CenterOptions(), run or Run()
    require_unfitted(student, "center")
    images = images[: options.num_images]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    rewrites = (_center_keys_and_values, _center_queries, _center_inputs)
    steps = len(rewrites) + (2 * count_fits(student) if options.guarded else 0)
    with run.progress("center", total=steps) as bar:
        for rewrite in rewrites:
            rewrite(student, images)
            bar.advance()
        helps = not options.guarded or _helps(student, before, teacher, images[:TRIAL_IMAGES], options.seed, bar)
    if not helps:
        student.load_state_dict(before)
        logger.info("center: no clear gain on every kind of image; left out")


def _helps(student: nn.Module, before: dict[str, Tensor], teacher: nn.Module, images: Tensor, seed: int, bar: Progress) -> bool:
    """Whether the centered student, its ranges fitted, is clearly better than the state `before` on every kind of image.

    The images that the means come from are one of the kinds: where means differ much from image to image, centering widens the
    range even of these. Noise and procedural images alone can be too much alike to show it.
    """
    noise = synthesize(teacher, method="noise", num_images=PROBES, seed=seed).to(images)
    validation = HeldOutValidation(teacher, images[:PROBES], noise, seed=seed)

    def errors(state: dict[str, Tensor]) -> list[float]:
        trial = deepcopy(student)
        trial.load_state_dict(state)
        fit_all(trial, images, bar)
        return validation.errors(trial)

    return worst_ratio(errors(student.state_dict()), errors(before)) <= CLEAR_GAIN


def _center_keys_and_values(student: nn.Module, images: Tensor) -> None:
    found = projections(student)
    writers = {rows.linear for projection in found for rows in (projection.keys, projection.values)}
    inputs = float_inputs(student, {name: (name,) for name in writers}, images, _mean)

    def take_mean(written: Rows) -> Tensor:
        """Subtract the mean output of these rows from their bias, and return it; it follows from the mean input."""
        linear, rows = student.get_submodule(written.linear), list(written.rows)
        mean = (linear.weight @ (inputs[written.linear] - linear.input_shift) + linear.bias)[rows]
        linear.bias[rows] -= mean
        return mean

    for projection in found:
        if projection.shifts:
            take_mean(projection.keys)
        if projection.reader:
            reader = student.get_submodule(projection.reader)
            reader.bias.add_(reader.weight @ take_mean(projection.values))


def _center_queries(student: nn.Module, images: Tensor) -> None:
    def collect(product: nn.Module, operands: tuple[Tensor, Tensor]) -> None:
        product.left_shift.copy_(operands[0].mean((0, 2))[:, None, :])  # (B, heads, N, head_dim)

    float_pass(student, images, [(f"{site.name}.qk", collect) for site in attention_sites(student)])


def _center_inputs(student: nn.Module, images: Tensor) -> None:
    """All inputs but those on a grid of unequal steps, which is made for values as they are: GELU's outputs, for example."""
    linears = {
        name: part
        for name, part in student.named_modules()
        if isinstance(part, QuantLinear) and isinstance(part.input_quantizer, Uniform | TokenUniform | nn.Identity)
    }
    means = float_inputs(student, {name: (name,) for name in linears}, images, _mean)
    for name, linear in linears.items():
        linear.bias.add_(linear.weight @ (means[name] - linear.input_shift))  # by the float weight: the mean pays no rounding
        linear.input_shift.copy_(means[name])


def _mean(name: str, inputs: Tensor) -> Tensor:
    return inputs.mean(0)
