"""`vitdfq analyze`: where a recipe's student loses accuracy, in tables, JSON and charts, and a recipe of bits by layer."""

import json
import logging
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vitdfq.analysis import Allocation
from vitdfq.analysis import analyze as measure_everything
from vitdfq.analysis.budget import Budget
from vitdfq.analysis.sensitivity import Measure
from vitdfq.common.errors import InputError, RecipeError
from vitdfq.common.files import read_json, write_text
from vitdfq.evaluation import AnyPredictions, predict, summarize
from vitdfq.quantization import quantize
from vitdfq.recipe import Recipe, load_recipe
from vitdfq.recipe.teacher import errors_of_section
from vitdfq.reports import analysis_plots, analysis_tables
from vitdfq.reports.analysis_page import write_analysis_page
from vitdfq.reports.page import FILE as REPORT
from vitdfq.runtime import distributed
from vitdfq.workflow.artifacts import ArtifactStore, Inputs
from vitdfq.workflow.run import open_run, say_written
from vitdfq.workflow.stages import RunStages

logger = logging.getLogger(__name__)

IMAGES, RESULT, PAGE, MIXED = "images.safetensors", "analysis.json", "analysis.md", "mixed.yaml"
HELD_OUT_SEED = 3_000_017  # is added to the recipe's, so that held-out images differ from those of calibration
MOST_HELD_OUT = 64


def analyze(
    source: str | Path | dict[str, Any],
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    fresh: bool = False,
    budget: str | None = None,
) -> dict[str, Any]:
    """Analyze the student of a recipe or of a run, and return the content of analysis.json: see `vitdfq.analysis.analyze`.

    Args:
        source: a recipe's path, name or content, or the folder of a run, whose recipe and images are used.
        out: folder for the results; None: `runs/analyze_<recipe>`, or `analysis` in the folder of the run.
        overrides: `section.key=value` texts. One of the section `evaluate` asks for accuracy too: every student that is scored
            is then evaluated.
        fresh: remove earlier results from `out` first.
        budget: as of `vitdfq.analysis.analyze`; the recipe with bits by layer is written to `mixed.yaml`.

    Raises:
        RecipeError, InputError, AccessError, GateError: see `vitdfq.common.errors`.
    """
    if budget is not None:
        with errors_of_section("--budget"):
            Budget.parse(budget)
    folder = run_folder(source)
    recipe = load_recipe(source if folder is None else folder / "recipe.yaml", list(overrides))
    out = out or (None if folder is None else folder / "analysis")
    with_accuracy = any(text.startswith("evaluate") for text in overrides)
    with open_run(replace(recipe, name=f"analyze_{recipe.name}"), out, fresh) as stages:
        stages.num_stages = 3 + with_accuracy
        content = _analyze(stages, recipe, folder, budget, with_accuracy)
        if distributed.is_main():
            _write(stages, recipe, content)
        say_written(stages.folder, [PAGE, RESULT, REPORT, *analysis_plots.FILES, *([MIXED] if content["allocation"] else [])])
        return content


def run_folder(source: str | Path | dict[str, Any]) -> Path | None:
    """Return the folder if `source` is a run, None if it is a recipe.

    Raises:
        InputError: a folder that is no run.
    """
    if isinstance(source, dict) or not Path(source).is_dir():
        return None
    if not (Path(source) / "recipe.yaml").is_file():
        raise InputError(f"{source}: a folder without recipe.yaml; analyze takes a recipe, or the folder of a run")
    return Path(source)


def _analyze(stages: RunStages, recipe: Recipe, folder: Path | None, budget: str | None, with_accuracy: bool) -> dict[str, Any]:
    measure = None
    if with_accuracy:
        stages.begin(f"evaluate the teacher, {recipe.model['name']}")
        predictions = stages.predict_teacher()  # first: data that cannot be read must not cost an analysis
        if predictions is None:
            raise RecipeError(f"evaluate: {recipe.evaluation.why_none(stages.teacher)}")
        measure = accuracy(stages, predictions)
    stages.begin("synthesize images for calibration")
    images = _images_of_run(stages, folder)
    if images is None:
        images, _ = stages.make_images(recipe.synthesize)
    stages.begin("synthesize other images, to measure on")
    other = {"num_images": min(len(images), MOST_HELD_OUT), "seed": recipe.synthesis.seed + HELD_OUT_SEED}
    held_out, _ = stages.make_images(recipe.synthesize | other, "stages/held_out_images")
    stages.begin(f"analyze the student at {recipe.bits.upper()}")
    inputs = stages.student_inputs(images) | {"held_out": other, "budget": budget}
    if with_accuracy:
        inputs |= stages.evaluation_inputs()
    if stages.store.finished_seconds(RESULT, inputs) is not None:
        return distributed.from_main(lambda: read_json(stages.folder / RESULT))
    run = stages.store.run_of(RESULT, inputs)
    with errors_of_section("analyze"):
        student = quantize(stages.prepared, **recipe.quantize)
        options = {"steps": recipe.calibrate.get("steps"), "seed": recipe.calibrate.get("seed", recipe.seed)}
        sections: dict[str, Any] = {"teacher": stages.prepared, "held_out": held_out, "budget": budget, "measure": measure}
        analysis = measure_everything(student, images, **sections, **options, run=run)
    mixed = None if analysis.allocation is None else mixed_recipe(recipe, analysis.allocation).to_dict()
    content = stages.header() | {"model": recipe.model["name"], "bits": recipe.bits} | analysis.to_dict() | {"mixed": mixed}
    content["recipe"] = recipe.name
    text = json.dumps(content, indent=2) + "\n"
    if distributed.is_main():
        write_text(stages.folder / RESULT, text)
        stages.store.finish(RESULT, inputs, run.parts.seconds())
    run.forget()
    return json.loads(text)  # as it is read when it is used again


def accuracy(stages: RunStages, teacher: AnyPredictions) -> Measure:
    """What a student gives on the recipe's real images, each time in one process."""
    compared = stages.teacher if stages.compares_in_pass else None

    def measure(student: nn.Module) -> dict[str, Any]:
        return summarize(predict(student, teacher=compared, **stages.recipe.evaluate), teacher)

    return measure


def mixed_recipe(recipe: Recipe, allocation: Allocation) -> Recipe:
    """Return the recipe with bits by layer. Its further bits and comparison, which bits by layer would overrule, are left out."""
    name = f"{recipe.name[:60]}_{allocation.budget}_{allocation.amount:g}".replace("+", "")
    overrides = allocation.overrides(recipe.quantize.get("overrides"))
    return replace(recipe, name=name, quantize=recipe.quantize | {"overrides": overrides}, also_bits=[], compare={})


def _images_of_run(stages: RunStages, folder: Path | None) -> Tensor | None:
    """The images of a run of the same recipe; None if they are not there, or would be others."""
    if folder is None:
        return None
    inputs: Inputs = stages.synthesis_inputs(stages.recipe.synthesize)
    found = ArtifactStore(folder).read_despite(IMAGES, inputs, "vitdfq")
    if found is None:
        logger.info(f"{shlex.quote(str(folder / IMAGES))}: not of this recipe as it is now; images are synthesized")
        return None
    logger.info(f"{shlex.quote(str(folder / IMAGES))}: used")
    return found[0]["images"]


def _write(stages: RunStages, recipe: Recipe, content: dict[str, Any]) -> None:
    """Write everything but analysis.json, which is there already."""
    folder = stages.folder
    write_text(folder / PAGE, analysis_tables.markdown(content))
    for name, chart in analysis_plots.analysis_charts(content).items():
        chart.save_png(folder / name)
    write_analysis_page(folder, content)
    if content["mixed"] is None:
        return
    mixed = load_recipe(content["mixed"])  # checked as any other recipe
    write_text(folder / MIXED, mixed.to_yaml())
    if not analysis_tables.is_better(content["allocation"]):
        logger.warning("on the held-out images bits by layer are no better than the same bits everywhere, which are written")
    logger.info(f"bits by layer: vitdfq run {shlex.quote(str(folder / MIXED))}")
