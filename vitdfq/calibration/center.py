"""Centering: the part of an activation that every token shares need not be quantized."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, float_pass, require_unfitted
from vitdfq.calibration.held_out import HeldOutValidation, worst_ratio
from vitdfq.calibration.observe import count_fits, fit_all
from vitdfq.models import Rows, attention_sites, projections
from vitdfq.quantization.modules import QuantLinear
from vitdfq.runtime import progress
from vitdfq.synthesis import synthesize

PROBES = 16  # images of noise, and of those given, beside the guard's painted ones
TRIAL_IMAGES = 32
CLEAR_GAIN = 0.8  # share of the error left; near 1 rounding decides, and other images may well lose


@torch.no_grad()
def center(
    student: nn.Module, teacher: nn.Module, images: Tensor, *, num_images: int = 64, guarded: bool = True, seed: int = 0
) -> None:
    """Move the mean over tokens and images of what is quantized into biases; the float function stays, whatever the images.

    Keys: softmax does not see a constant added to all keys of a head, so their mean leaves the bias of what writes them. Values:
    rows of softmax sum to one, so their mean passes to the bias of `proj`, if this reads them as they are. Queries:
    `QuantMatMul.left_shift`, whose scores are added back. Inputs of linear layers: `QuantLinear.input_shift`, met by the float
    weight. What remains has a smaller range, so finer steps.

    That gains much where the mean is the model's own (large pretrained ViTs), and loses much where it is only that of these
    images and others then fall outside the range. Which of the two, the images themselves, noise and painted ones tell: both ways
    are tried, and unless centering is clearly the better one on each kind, all stays as it was.

    Args:
        student: changed in place; the quantizers must be fitted afterwards, by `observe`.
        teacher: the float model the student was made from.
        images: (N, 3, H, W).
        num_images: at most so many of the images are used; means need few.
        guarded: try both ways; False: center in any case.
        seed: of noise and painted images.

    Raises:
        ValueError: quantizers fitted already.
    """
    require_unfitted(student, "center")
    images = images[:num_images]
    before = {name: value.clone() for name, value in student.state_dict().items()}
    rewrites = (_center_keys_and_values, _center_queries, _center_inputs)
    with progress.bar("center", total=len(rewrites) + (2 * count_fits(student) if guarded else 0)) as bar:
        for rewrite in rewrites:
            rewrite(student, images)
            bar.advance()
        helps = not guarded or _helps(student, before, teacher, images[:TRIAL_IMAGES], seed, bar)
    if not helps:
        student.load_state_dict(before)
        progress.say("center: no clear gain on every kind of image; left out")


def _helps(
    student: nn.Module, before: dict[str, Tensor], teacher: nn.Module, images: Tensor, seed: int, bar: progress.Bar
) -> bool:
    """Whether the centered student, its ranges fitted, is clearly better than the one before on every kind of image.

    That it must be on the images that gave the means too is no matter of course: where these are far from zero and differ
    from image to image, centering makes the range of each larger. Noise and painted images can be too much alike to tell.
    """
    noise = synthesize(teacher, method="noise", num_images=PROBES, seed=seed).to(images)
    guard = HeldOutValidation(teacher, images[:PROBES], noise, seed=seed)

    def errors(state: dict[str, Tensor]) -> list[float]:
        trial = deepcopy(student)
        trial.load_state_dict(state)
        fit_all(trial, images, bar)
        return guard.errors(trial)

    return worst_ratio(errors(student.state_dict()), errors(before)) <= CLEAR_GAIN


def _center_keys_and_values(student: nn.Module, images: Tensor) -> None:
    found = projections(student)
    writers = {rows.linear for projection in found for rows in (projection.keys, projection.values)}
    inputs = float_inputs(student, {name: (name,) for name in writers}, images, _mean)

    def take_mean(written: Rows) -> Tensor:
        """Take the mean of what these rows write out of their bias, and return it: a linear layer's is known from its input's."""
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
    """But for what has a grid of unequal steps: those are made for values as they are, GELU's outputs for example."""
    linears = {
        name: part
        for name, part in student.named_modules()
        if isinstance(part, QuantLinear) and part.input_quantizer.has_equal_steps
    }
    means = float_inputs(student, {name: (name,) for name in linears}, images, _mean)
    for name, linear in linears.items():
        linear.bias.add_(linear.weight @ (means[name] - linear.input_shift))  # by the float weight: the mean pays no rounding
        linear.input_shift.copy_(means[name])


def _mean(name: str, inputs: Tensor) -> Tensor:
    return inputs.mean(0)
