"""Does onnxruntime compute what the student computes? Asked site by site, and once for the whole."""

import math
from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from vitdfq.common.errors import GateError
from vitdfq.models import image_size
from vitdfq.onnx import runtime

NUM_IMAGES = 3  # another batch than was traced
LEAST_AT_A_SITE = 40.0  # dB
LEAST_OF_LOGITS = 20.0  # dB, or 10 below what float64 makes of the student


@torch.no_grad()
def compared(
    model: nn.Module, data: bytes, opened: bytes, ends: dict[str, str], channels_last: set[str]
) -> dict[str, float | None]:
    """Compare on random images: `least_site_sqnr_db` of any site's output, and `sqnr_db` of the file's logits (None: equal).

    Another order of sums rounds a few values to the neighbouring code, and in a deep model each such step goes through all the
    layers behind: logits at 4 bits then differ as much as the student's own in float64, which says little of the file. So the
    student goes on from what onnxruntime made at each site, and is compared with it at the next.

    Args:
        model: the student.
        data: the file.
        opened: the same with the sites' outputs.
        ends: site -> name of its output there.
        channels_last: sites whose output is (B, h, w, D) there, and (B, D, h, w) in the student.

    Raises:
        GateError: too low; the first such site is named.
    """
    model = deepcopy(model).cpu().eval()
    images = torch.randn(NUM_IMAGES, 3, *image_size(model), generator=torch.Generator().manual_seed(0))
    exact = sqnr(deepcopy(model).double()(images.double()).float(), wanted := model(images))
    logits, *inside = runtime.outputs(opened, images, list(ends.values()))
    least = [math.inf]

    def going_on_from(site: str, found: Tensor) -> Callable[..., Tensor]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            least.append(_require(found, output, LEAST_AT_A_SITE, site))
            return found

        return hook

    handles = [
        model.get_submodule(site).register_forward_hook(
            going_on_from(site, found.movedim(-1, 1) if site in channels_last else found)
        )
        for site, found in zip(ends, inside, strict=True)
    ]
    least.append(_require(logits, model(images), LEAST_AT_A_SITE, "the model"))
    for handle in handles:
        handle.remove()
    whole = _require(runtime.outputs(data, images)[0], wanted, min(LEAST_OF_LOGITS, exact - 10), "the model")
    return {"least_site_sqnr_db": _rounded(min(least)), "sqnr_db": _rounded(whole)}


def _require(found: Tensor, wanted: Tensor, least: float, what: str) -> float:
    """Return `sqnr`, or raise GateError where it is below `least`, dB, or not a number."""
    if found.shape != wanted.shape:
        raise GateError(f"onnxruntime makes {tuple(found.shape)} of {what}, the student {tuple(wanted.shape)}")
    near = sqnr(found, wanted)
    if not near >= least:
        raise GateError(f"onnxruntime's output of {what} is {near:.1f} dB near the student's, at least {least:.0f} are expected")
    return near


def sqnr(found: Tensor, wanted: Tensor) -> float:
    """Of the median image of a batch, in dB; infinite where equal, NaN where something is not a number."""
    signal, noise = (values.double().square().flatten(1).sum(1) for values in (wanted, found - wanted))
    if noise.isnan().any():
        return math.nan
    return torch.where(noise == 0, math.inf, 10 * torch.log10(signal / noise)).sort().values[len(noise) // 2].item()


def _rounded(near: float) -> float | None:
    return None if math.isinf(near) else round(near, 1)
