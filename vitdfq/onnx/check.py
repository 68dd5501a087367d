"""Compare the outputs of onnxruntime with the student's: site by site, and once for the whole model."""

import math
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.common.errors import GateError
from vitdfq.models import image_size
from vitdfq.models.block_maps import in_one, map_names
from vitdfq.onnx import runtime
from vitdfq.onnx.storage import OpenedFile

NUM_IMAGES = 3  # another batch size than was traced
LEAST_AT_A_SITE = 40.0  # dB
LEAST_OF_OUTPUT = 20.0  # dB, or 10 below the SQNR between the student in float64 and in float32


@torch.no_grad()
def compare(model: nn.Module, file: OpenedFile) -> dict[str, Any]:
    """Compare on random images: `least_site_sqnr_db` of any site's output, and `sqnr_db` of the file's own output (None: equal).

    `disabled_optimizers` are those without which the file was opened, see `runtime.failing_optimizers`.

    Another order of summation rounds a few values to the neighboring code, and in a deep model each such step passes through
    all later layers: outputs at 4 bits then differ as much as the student's in float32 and in float64, which proves nothing about
    the file. So the output of each site in the student is replaced by onnxruntime's, and the next site is compared from there.

    Args:
        model: the student.
        file: with its sites' outputs.

    Raises:
        GateError: an SQNR is too low; the first such site is named.
    """
    model = deepcopy(model).cpu().eval()
    images = torch.randn(NUM_IMAGES, 3, *image_size(model), generator=torch.Generator().manual_seed(0))
    exact = sqnr(in_one(deepcopy(model).double()(images.double())).float(), wanted := in_one(model(images)))
    maps = map_names(model)
    own = len(maps) or 1
    without = runtime.failing_optimizers(file.data)
    given = runtime.outputs(file.opened, images, list(file.ends.values()), own, without)
    outputs, inside = in_one(tuple(given[:own]) if maps else given[0]), given[own:]
    least = [math.inf]

    def replace_by(site: str, theirs: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            least.append(_require(theirs, output, LEAST_AT_A_SITE, site))
            return theirs

        return hook

    handles = [
        model.get_submodule(site).register_forward_hook(
            replace_by(site, theirs.movedim(-1, 1) if site in file.channels_last else theirs)
        )
        for site, theirs in zip(file.ends, inside, strict=True)
    ]
    least.append(_require(outputs, in_one(model(images)), LEAST_AT_A_SITE, "the model"))
    for handle in handles:
        handle.remove()
    given = runtime.outputs(file.data, images, own=own, without=without)
    whole = _require(in_one(tuple(given) if maps else given[0]), wanted, min(LEAST_OF_OUTPUT, exact - 10), "the model")
    return {"disabled_optimizers": without, "least_site_sqnr_db": _rounded(min(least)), "sqnr_db": _rounded(whole)}


def _require(theirs: Tensor, wanted: Tensor, least: float, what: str) -> float:
    """Return `sqnr`, or raise GateError where it is below `least`, dB, or not a number."""
    if theirs.shape != wanted.shape:
        raise GateError(f"onnxruntime's output of {what} is {tuple(theirs.shape)}, the student's {tuple(wanted.shape)}")
    near = sqnr(theirs, wanted)
    if not near >= least:
        raise GateError(f"onnxruntime's output of {what} is {near:.1f} dB near the student's, at least {least:.0f} are expected")
    return near


def sqnr(values: Tensor, wanted: Tensor) -> float:
    """Signal to quantization noise ratio of the median image of a batch, in dB; infinite where equal, NaN where one is NaN."""
    signal, noise = (part.double().square().flatten(1).sum(1) for part in (wanted, values - wanted))
    if noise.isnan().any():
        return math.nan
    return torch.where(noise == 0, math.inf, 10 * torch.log10(signal / noise)).sort().values[len(noise) // 2].item()


def _rounded(near: float) -> float | None:
    return None if math.isinf(near) else round(near, 1)
