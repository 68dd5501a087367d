"""Per-channel mean subtraction: the mean of an activation over tokens is subtracted before quantization."""

import logging
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration.folding import float_inputs, float_pass, require_unfitted
from vitdfq.calibration.held_out import HeldOutValidation, worst_ratio
from vitdfq.calibration.observe import count_fits, fit_all
from vitdfq.common.options import check_counts
from vitdfq.models import Rows, attention_sites, projections
from vitdfq.quantization.modules import QuantLinear
from vitdfq.runtime.run import Progress, Run
from vitdfq.synthesis import TeacherFacts, synthesize
from vitdfq.synthesis.teacher_filter import MAX_NOISE_RATIO, NoiseReference

logger = logging.getLogger(__name__)

NUM_PROBES = 16  # images of noise, and of the given ones, on which the change is validated; `HeldOutValidation` adds others
NUM_FIT_IMAGES = 32  # on which the ranges of the two compared students are fitted
MAX_ERROR_RATIO = 0.95  # error after the change / before
# Where the images are noise to the teacher, or this cannot be measured. The error on noise then says little about that on real
# images: of 36 students of the zoo, the least ratios were .907 and .93, and the student of .93 was spoiled.
MAX_ERROR_RATIO_ON_NOISE = 0.85


@dataclass(frozen=True)
class CenterOptions:
    """Options of `center`.

    Attributes:
        num_images: the number of images used, from the first; means need few.
        guarded: True: undo the change unless it helps on several kinds of images. False: keep it in any case.
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
    """Subtract the channel mean from activations before quantization, and add its contribution to biases.

    The mean is over tokens and images. It acts as a zero point for each channel. The float function does not change.

    - Keys: softmax ignores a constant that is added to all keys of a head, so their mean leaves the bias that writes them.
    - Values: rows of softmax sum to one, so their mean moves to the bias of `proj`, if `proj` reads the values unchanged.
    - Queries: `QuantMatMul.left_shift`, whose scores are added back.
    - Inputs of linear layers: `QuantLinear.input_shift`, multiplied by the float weight and added to the bias.

    The remainder has a smaller range, and so finer quantization steps. The error falls much where the mean is a property of the
    model (large pretrained ViTs). It grows much where the mean is a property of these images only, since other images then fall
    outside the range. To distinguish the two, ranges are fitted with and without the change, and both students are compared with
    the teacher on these images and on procedural ones. Unless the error is clearly smaller on each kind, the change is undone.
    If the images are noise to the teacher (`NoiseReference`), the error has to be smaller still, and on other noise too.

    The method is this library's own.

    Args:
        student: changed in place; the quantizers must be fitted afterwards, by `observe`.
        teacher: the float model that the student was made from.
        images: (N, 3, H, W).
        options: see `CenterOptions`.
        run: receives the progress.

    Raises:
        ValueError: the quantizers are fitted already.
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
        helps = not options.guarded or _helps(student, before, teacher, images[:NUM_FIT_IMAGES], options.seed, bar)
    if not helps:
        student.load_state_dict(before)
        logger.info("center: no clear gain on every kind of image; left out")


def _helps(student: nn.Module, before: dict[str, Tensor], teacher: nn.Module, images: Tensor, seed: int, bar: Progress) -> bool:
    """Whether the centered student, with fitted ranges, has a clearly smaller error than the state `before` on all image sets.

    The images that the means come from are one of the sets. Where means differ much between images, centering widens the range
    even on these, and noise or procedural images alone can be too similar to each other to show it. Noise is a set only where
    the images are noise to the teacher themselves: it says nothing about a student of better ones.
    """
    noise = NoiseReference(teacher, TeacherFacts.of(teacher), seed)
    ratio = noise.ratio(images)
    trusted = ratio is not None and ratio < MAX_NOISE_RATIO
    probes = [images[:NUM_PROBES]]
    if not trusted:
        probes.append(synthesize(teacher, method="noise", num_images=NUM_PROBES, seed=seed).to(images))
    validation = HeldOutValidation(teacher, *probes, seed=seed, noise=noise)

    def errors(state: dict[str, Tensor]) -> list[float]:
        trial = deepcopy(student)
        trial.load_state_dict(state)
        fit_all(trial, images, bar)
        return validation.errors(trial)

    bound = MAX_ERROR_RATIO if trusted else MAX_ERROR_RATIO_ON_NOISE
    return worst_ratio(errors(student.state_dict()), errors(before)) <= bound


def _center_keys_and_values(student: Any, images: Tensor) -> None:
    sites = projections(student)
    writers = {rows.linear for site in sites for rows in (site.keys, site.values)}
    inputs = float_inputs(student, {name: (name,) for name in writers}, images, _mean)

    def subtract_mean(written: Rows) -> Tensor:
        """Subtract the mean output of these rows from their bias, and return it; it follows from the mean input."""
        linear, rows = student.get_submodule(written.linear), list(written.rows)
        mean = (linear.weight @ (inputs[written.linear] - linear.input_shift) + linear.bias)[rows]
        mean = mean if written.bias is None else mean + student.get_parameter(written.bias)
        linear.bias[rows] -= mean
        return mean

    for site in sites:
        if site.shifts:
            subtract_mean(site.keys)
        if site.reader:
            reader = student.get_submodule(site.reader)
            reader.bias.add_(reader.weight @ subtract_mean(site.values))


def _center_queries(student: nn.Module, images: Tensor) -> None:
    def collect(product: Any, operands: tuple[Tensor, Tensor]) -> None:
        product.left_shift.copy_(operands[0].mean((0, 2))[:, None, :])  # (B, heads, N, head_dim)

    float_pass(student, images, [(f"{site.name}.qk", collect) for site in attention_sites(student)])


def _center_inputs(student: nn.Module, images: Tensor) -> None:
    """Center the inputs of linear layers, except on grids of unequal steps: they are made for uncentered values, as GELU's."""
    linears = {
        name: part
        for name, part in student.named_modules()
        if isinstance(part, QuantLinear) and part.input_quantizer.has_equal_steps
    }
    means = float_inputs(student, {name: (name,) for name in linears}, images, _mean)
    for name, linear in linears.items():
        linear.bias.add_(
            linear.weight @ (means[name] - linear.input_shift)
        )  # the float weight: the mean's part has no rounding error
        linear.input_shift.copy_(means[name])


def _mean(name: str, inputs: Tensor) -> Tensor:
    return inputs.mean(0)
