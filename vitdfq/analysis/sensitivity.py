"""Which sites and which weights hurt: errors on held-out synthetic images with few quantizers on, or few off. No labels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.analysis.errors import Scores, error_of, sqnr_db
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.switches import WEIGHT
from vitdfq.runtime.run import Run

Measure = Callable[[nn.Module], Mapping[str, Any]]  # scores of a student on images of the caller's, such as its accuracy


@dataclass(frozen=True)
class SiteSensitivity:
    """One site: the student with this site alone quantized, and with all sites but this one.

    Attributes:
        site, unit: names, "blocks.0.attn.qkv" and "blocks.0".
        bits: quantizer -> its bits: "weight", "input", "left", "right".
        alone, all_but: scores on held-out synthetic images, see `output_scores`.
        alone_measured, all_but_measured: what `measure` gave for the same two students; empty without it.
    """

    site: str
    unit: str
    bits: dict[str, int]
    alone: Scores
    all_but: Scores
    alone_measured: Scores
    all_but_measured: Scores


@dataclass(frozen=True)
class UnitErrors:
    """The SQNR in dB of one unit's output, for the input that it has in the float function; None: no error.

    Attributes:
        weights: with the unit's weights quantized and its activations in float.
        activations: with its activations quantized and its weights in float.
        both: with both quantized.
    """

    unit: str
    weights: float | None
    activations: float | None
    both: float | None


def site_sensitivities(passes: HeldOutPasses, measure: Measure | None, run: Run) -> list[SiteSensitivity]:
    """Return the sensitivity of every site, the most sensitive first: by the error of the student with this site alone.

    Args:
        passes: over the held-out images.
        measure: called with the student as it is switched; its numbers are kept beside those of the held-out images.
        run: keeps finished sites, shares them over the processes, receives the progress.
    """
    switches = passes.switches
    names = list(dict.fromkeys(site for site, _ in switches.parts))
    with run.progress("analyze: sites", total=len(names)) as bar:

        def compute(site: str) -> dict[str, Tensor]:
            own, first = switches.parts_of([site]), passes.unit_of[site]
            switches.only(own)
            alone, alone_measured = passes.scores(passes.outputs_alone(first)), measured_scores(measure, switches.student)
            switches.only([part for part in switches.parts if part not in own])
            all_but, all_but_measured = passes.scores(passes.outputs_of_rest(first)), measured_scores(measure, switches.student)
            bar.advance()
            return _flat(alone=alone, all_but=all_but, alone_measured=alone_measured, all_but_measured=all_but_measured)

        tensors = run.compute_missing(names, compute)
    switches.only(switches.parts)
    rows = []
    for site, values in zip(names, tensors, strict=True):
        unit = passes.units[passes.unit_of[site]].name
        rows.append(SiteSensitivity(site, unit, switches.bits_of(site), **_unflat(values)))
    return sorted(rows, key=lambda row: -error_of(row.alone))


def unit_errors(passes: HeldOutPasses) -> list[UnitErrors]:
    """Return the error of weights, of activations and of both, unit by unit, in the order of the chain."""
    switches, rows = passes.switches, []
    for index, unit in enumerate(passes.units):
        own = [part for part in switches.parts if passes.unit_of[part[0]] == index]
        kinds = ([part for part in own if part[1] == WEIGHT], [part for part in own if part[1] != WEIGHT], own)
        switches.only([])
        wanted = passes.unit_output(index)
        errors = []
        for on in kinds:
            switches.only(on)
            errors.append(sqnr_db(passes.unit_output(index), wanted) if on else None)
        rows.append(UnitErrors(unit.name, *errors))
    switches.only(switches.parts)
    return rows


def weight_errors(passes: HeldOutPasses, weights: Mapping[int, Mapping[str, Tensor]], run: Run) -> dict[str, dict[int, float]]:
    """Return layer -> bits -> the error of the student whose only quantized values are this layer's weight; see `error_of`.

    Args:
        passes: over the held-out images.
        weights: bits -> layer -> its weight, rounded to so many bits.
        run: keeps finished layers, shares them over the processes, receives the progress.
    """
    switches, names = passes.switches, list(passes.switches.float_weights)
    with run.progress("analyze: bits of weights", total=len(names)) as bar:

        def compute(layer: str) -> dict[str, Tensor]:
            errors, first = {}, passes.unit_of[layer]
            switches.only([])
            for bits, rounded in weights.items():
                switches.put_weight(layer, rounded[layer])
                errors[str(bits)] = torch.tensor(error_of(passes.scores(passes.outputs_alone(first))), dtype=torch.float64)
            bar.advance()
            return errors

        tensors = run.compute_missing(names, compute)
    switches.only(switches.parts)
    return {
        name: {int(bits): error.item() for bits, error in errors.items()} for name, errors in zip(names, tensors, strict=True)
    }


def measured_scores(measure: Measure | None, student: nn.Module) -> Scores:
    """The numbers among what `measure` gives for a student; none without it."""
    scores = {} if measure is None else measure(student)
    return {key: value for key, value in scores.items() if isinstance(value, int | float | None)}


def _flat(**scores: Scores) -> dict[str, Tensor]:
    """Scores as tensors, which a run keeps; NaN stands for None."""
    values = {f"{kind}.{key}": value for kind, part in scores.items() for key, value in part.items()}
    return {name: torch.tensor(torch.nan if value is None else value, dtype=torch.float64) for name, value in values.items()}


def _unflat(tensors: Mapping[str, Tensor]) -> dict[str, Scores]:
    """Undo `_flat`."""
    result: dict[str, Scores] = {"alone": {}, "all_but": {}, "alone_measured": {}, "all_but_measured": {}}
    for name, value in tensors.items():
        kind, _, key = name.partition(".")
        result[kind][key] = None if value.isnan() else value.item()
    return result
