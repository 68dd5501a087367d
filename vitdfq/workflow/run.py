"""A recipe becomes a folder, stage by stage. Each stage leaves an artifact with its inputs; a finished stage is not redone."""

import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitdfq.calibration.calibrate import check_steps
from vitdfq.checkpoint import save_load
from vitdfq.common.errors import VitdfqError
from vitdfq.common.files import write_text
from vitdfq.common.safetensors_io import write_tensors
from vitdfq.data import check_own_images
from vitdfq.evaluation import UnlabeledError, check_reading, evaluate
from vitdfq.hub import model_card, publish, retry
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.quantization import quantize
from vitdfq.recipe import Recipe, load_recipe
from vitdfq.recipe.teacher import errors_of_section, load_section
from vitdfq.reports import attention, gates, image_grid, sqnr
from vitdfq.reports.image_targets import FILE as TARGETS
from vitdfq.reports.image_targets import save_image_targets
from vitdfq.reports.page import FILE as REPORT
from vitdfq.reports.plots import unit_sqnr_chart
from vitdfq.reports.run_page import loss_charts, write_run_page
from vitdfq.runtime import distributed, interrupt
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.runtime.trackers import tracked
from vitdfq.synthesis import TeacherFacts, check_classes
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.synthesize import image_targets
from vitdfq.workflow import synthetic_scores
from vitdfq.workflow.artifacts import lock_run_folder
from vitdfq.workflow.stages import RunStages

logger = logging.getLogger(__name__)

CHECKPOINT = ["config.json", "model.safetensors", "recipe.yaml", "metrics.json", "README.md"]
WRITTEN = {  # last stage -> files that a run up to it leaves
    "images": ["images.safetensors", REPORT],
    "student": ["images.safetensors", *CHECKPOINT, REPORT],
    "metrics": ["images.safetensors", *CHECKPOINT, REPORT],
}


def run(
    recipe: str | Path | dict[str, Any] | Recipe,
    *,
    out: str | Path | None = None,
    overrides: tuple[str, ...] | list[str] = (),
    fresh: bool = False,
    until: str = "metrics",
) -> dict[str, Any]:
    """Run a recipe and return its metrics: the content of metrics.json, up to the stage `until`.

    Args:
        recipe: path of a YAML file, its content as a dict, or a checked Recipe.
        out: folder for the results; `runs/<recipe name>` when None. Finished stages in it are used again.
        overrides: `section.key=value` texts, applied before the recipe is checked.
        fresh: remove the results of earlier runs from `out` first.
        until: last stage, "images", "student" or "metrics".

    Raises:
        RecipeError, InputError, AccessError, GateError: see `vitdfq.common.errors`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, list(overrides))
    with open_run(recipe, out, fresh) as stages:
        metrics = _run_stages(stages, until)
        say_written(stages.folder, WRITTEN[until])
        return metrics


def _run_stages(stages: RunStages, until: str) -> dict[str, Any]:
    """All stages in order, up to `until`."""
    recipe, folder, teacher, prepared = stages.recipe, stages.folder, stages.teacher, stages.prepared
    stages.num_stages = stages.count(until)
    teacher_predictions = None
    if until == "metrics":
        if recipe.push:
            distributed.from_main(retry.check_token)
        if stages.evaluates:
            stages.begin(f"evaluate the teacher, {recipe.model['name']}")
            teacher_predictions = stages.predict_teacher()  # first: data that cannot be read must not cost a synthesis
        else:
            logger.info(f"{recipe.evaluation.why_none(teacher)}; the run goes on without evaluation")
            if left_out := [key for key in ("baselines", "also_bits") if getattr(recipe, key)]:
                logger.warning(f"{' and '.join(left_out)} left out: without evaluation only the saved student is measured")
    stages.begin(_title(recipe.synthesis))
    images, synthesis = stages.make_images(recipe.synthesize)
    metrics = stages.header() | {"synthesis": synthesis}
    if distributed.is_main():
        _report_images(stages, images)
    if until == "images":
        if distributed.is_main():
            write_run_page(folder, metrics)
        return metrics
    stages.begin(f"calibrate the student at {recipe.bits.upper()}")
    student, seconds = stages.make_student(images)
    unseen = synthetic_scores.unseen_images(teacher, recipe.seed)
    outputs = synthetic_scores.outputs_by_kind(student, prepared, images, unseen)
    scores = synthetic_scores.synthetic_scores(outputs, stages.gives)
    synthetic_scores.warn_of_gap(scores)
    expected = synthetic_scores.expected_on_real_images(outputs, stages.gives)
    if distributed.is_main():
        unit_errors = sqnr.unit_sqnr(student, prepared, torch.cat(list(unseen.values())))
        content = {name: asdict(error) for name, error in unit_errors.items()}
        write_text(folder / "reports" / "unit_sqnr.json", json.dumps(content, indent=2) + "\n")
        unit_sqnr_chart(unit_errors).save_png(folder / "reports" / "unit_sqnr.png")
    metrics |= {"calibration": {"seconds": seconds}, "size": stages.sizes(), "synthetic": scores}
    metrics["expected"] = expected
    metrics |= stages.evaluate(student, images, teacher_predictions)
    metrics["sha256"] = distributed.from_main(lambda: publish.seal(folder))
    if distributed.is_main():
        _draw_losses(folder, metrics)
        model_card.write_card(folder, metrics, recipe.to_dict(), save_load.read_config(folder), recipe.to_yaml())
        write_run_page(folder, metrics)
        write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")  # last: it certifies the other files
    if recipe.push and until == "metrics":
        logger.info(f"published: {distributed.from_main(lambda: publish.push(folder, **recipe.push))['url']}")
    return metrics


def _report_images(stages: RunStages, images: Tensor) -> None:
    """Draw the grid of the images and the attention on them if they have priors of it; write what they were made for."""
    teacher, synthesis = stages.teacher, stages.recipe.synthesis
    image_grid.save_grid(teacher, images, stages.folder / "reports" / "synthetic_grid.png")
    save_image_targets(teacher, images, image_targets(teacher, synthesis), stages.folder / TARGETS)
    maps = attention.teacher_attention(teacher, images, stages.recipe.synthesize | {"seed": synthesis.seed})
    path, picture = stages.folder / attention.FILE, stages.folder / "reports" / "attention.png"
    if "priors" in maps:
        write_tensors(path, maps)
        attention.save_attention(teacher, images, maps, picture)
    else:  # those of an earlier recipe
        path.unlink(missing_ok=True)
        picture.unlink(missing_ok=True)


def _draw_losses(folder: Path, metrics: dict[str, Any]) -> None:
    """Draw the losses of synthesis and training, where there are some."""
    for path in folder.glob("reports/losses_*.png"):  # of an earlier recipe
        path.unlink()
    for name, chart in loss_charts(folder, metrics).items():
        chart.save_png(folder / "reports" / name)


def _title(options: SynthesisOptions) -> str:
    """What the stage that makes the images does."""
    if options.images is not None:
        return f"read {options.num_images} images from {options.images}"
    return f"synthesize {options.num_images} images, method {options.method}"


def say_written(folder: Path, files: list[str]) -> None:
    """The last message of a verb that leaves files; of those that need matplotlib some may not be there."""
    logger.info(f"written to {shlex.quote(str(folder))}: {', '.join(file for file in files if (folder / file).exists())}")


@contextmanager
def open_run(recipe: Recipe, out: str | Path | None, fresh: bool) -> Iterator[RunStages]:
    """Load the teacher, try out the sections that change it, and reserve the folder inside the block.

    The sections come first, so that a recipe that cannot work (a glob without a match, for example) costs no synthesis and
    leaves no folder.
    """
    device = distributed.start()
    teacher = load_section(recipe.model).to(device)
    gates.check_thresholds(teacher, recipe.min_agreement, recipe.min_cosine)
    check_reading(teacher, recipe.evaluation)
    with errors_of_section("prepare and quantize"):
        prepared = prepared_copy(teacher, **recipe.prepare)
        student = quantize(prepared, **recipe.quantize)
    with errors_of_section("calibrate"):
        check_steps(student, **recipe.calibrate)
    facts = TeacherFacts.of(teacher)
    with errors_of_section("synthesize"):
        check_classes(recipe.synthesis, facts)
        if recipe.synthesis.images is not None:
            check_own_images(recipe.synthesis.images)
    with errors_of_section("baselines"):
        for name in recipe.baselines:
            check_classes(SynthesisOptions(method=name), facts)
    folder = Path(out) if out else Path("runs") / recipe.name
    with (
        lock_run_folder(folder, recipe.name, recipe.to_yaml(), fresh),
        tracked(recipe.trackers, recipe.name, folder, {"recipe": recipe.to_yaml()}) as listeners,
    ):
        logger.info(f"{recipe.name}: results go to {shlex.quote(str(folder))}")
        logger.info(prepared.vitdfq["prepared"])  # now that nothing is refused: a refusal is one line
        interrupt.kept.folder = folder
        yield RunStages(recipe, folder, teacher, prepared, listeners)


def evaluate_run(folder: str | Path, overrides: list[str]) -> dict[str, Any]:
    """Load the checkpoint in `folder` and evaluate it with the section `evaluate` of its recipe, changed by `overrides`.

    Its teacher is evaluated on the same images, so that agreement and KL are measured too. A teacher that cannot be loaded is
    left out, with a message.

    Raises:
        VitdfqError: as `load_section`, where nothing but the teacher tells what the student is worth: for images without labels,
            and for features.
    """
    student = save_load.load(folder).to(distributed.start())
    recipe = load_recipe(Path(folder) / "recipe.yaml", overrides)
    teacher, refusal = None, None
    try:
        teacher = load_section(recipe.model).to(distributed.start())
    except VitdfqError as error:
        refusal = error
    try:
        metrics = evaluate(student, teacher=teacher, **recipe.evaluate, run=SharedRun())
    except UnlabeledError as error:
        raise refusal or error from None
    if refusal is not None:
        logger.info(f"agreement and KL are left out: the teacher cannot be loaded: {refusal}")
    logger.info(f"evaluated {shlex.quote(str(folder))}; nothing was written to it")
    return metrics
