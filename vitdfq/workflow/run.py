"""The straight line from recipe to folder. Each stage leaves an artifact with its inputs; a finished stage is not redone."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.calibrate import check_steps
from vitdfq.checkpoint import save_load
from vitdfq.common.errors import GateError, RecipeError, VitdfqError
from vitdfq.common.files import write_text
from vitdfq.common.safetensors_io import digest
from vitdfq.common.version import __version__
from vitdfq.evaluation import Predictions, evaluate, predict, score
from vitdfq.hub import model_card, publish, retry
from vitdfq.models import load_teacher
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import bits_of
from vitdfq.recipe import Recipe, load_recipe
from vitdfq.reports import gates, image_grid, sqnr
from vitdfq.reports.plots import plot_unit_sqnr
from vitdfq.runtime import distributed
from vitdfq.runtime.progress import Listener
from vitdfq.runtime.run import Run, Tensors
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.runtime.trackers import tracked
from vitdfq.synthesis import METHODS, synthesize
from vitdfq.workflow.artifacts import ArtifactStore, Inputs, hashed, lock_run_folder

logger = logging.getLogger(__name__)


def run(
    recipe: str | Path | dict[str, Any] | Recipe,
    *,
    out: str | Path | None = None,
    overrides: tuple[str, ...] | list[str] = (),
    fresh: bool = False,
    until: str = "metrics",
) -> dict[str, Any]:
    """Do what a recipe says and return its metrics (the content of metrics.json, as far as `until` goes).

    Args:
        recipe: path of a YAML file, its content as a dict, or a checked Recipe.
        out: folder for the results; `runs/<recipe name>` when None. A finished stage found there is used again.
        overrides: `section.key=value` texts, applied before the recipe is checked.
        fresh: forget what an earlier run left in `out`.
        until: last stage, "images", "student" or "metrics".

    Raises:
        RecipeError, InputError, AccessError, GateError: see `vitdfq.common.errors`.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, list(overrides))
    with open_line(recipe, out, fresh) as line:
        return _along(line, until)


def _along(line: "Line", until: str) -> dict[str, Any]:
    """The straight line."""
    recipe, folder, teacher, prepared = line.recipe, line.folder, line.teacher, line.prepared
    if until == "metrics":
        if recipe.push:
            distributed.from_main(retry.check_token)
        line.teacher_predictions()  # first: data that cannot be read must not cost a synthesis
    images, synthesis = line.images(recipe.synthesize)
    image_grid.save_grid(teacher, images, folder / "reports" / "synthetic_grid.png")
    metrics = line.heading() | {"synthesis": synthesis}
    if until == "images":
        return metrics
    student, seconds = line.student(images)
    unit_errors = sqnr.unit_sqnr(student, prepared, images)
    write_text(folder / "reports" / "unit_sqnr.json", json.dumps(unit_errors, indent=2) + "\n")
    plot_unit_sqnr(unit_errors, folder / "reports" / "unit_sqnr.png")
    metrics |= {"calibration": {"seconds": seconds}, "size": line.size()}
    if until == "student":
        return metrics
    metrics |= line.evaluated(student, images)
    metrics["sha256"] = distributed.from_main(lambda: publish.seal(folder))
    model_card.write_card(folder, metrics, recipe.to_dict(), save_load.read_config(folder), recipe.to_yaml())
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")  # last: it says that the rest is of this run
    if recipe.push:
        logger.info(f"published: {distributed.from_main(lambda: publish.push(folder, **recipe.push))['url']}")
    return metrics


@contextmanager
def open_line(recipe: Recipe, out: str | Path | None, fresh: bool) -> Iterator["Line"]:
    """Load the teacher, try what the recipe does to it, and only then claim the folder, for as long as the block lasts."""
    device = distributed.start()
    with blaming("model"):
        teacher = load_teacher(**recipe.model).to(device)
    with blaming("prepare and quantize"):  # now, not after a synthesis: a glob that matches nothing, say
        prepared = prepare(teacher, **recipe.prepare)
        student = quantize(prepared, **recipe.quantize)
    with blaming("calibrate"):
        check_steps(student, recipe.calibrate.get("steps"))
    folder = Path(out) if out else Path("runs") / recipe.name
    with (
        lock_run_folder(folder, recipe.name, recipe.to_yaml(), fresh),
        tracked(recipe.trackers, recipe.name, folder, {"recipe": recipe.to_yaml()}) as listeners,
    ):
        yield Line(recipe, folder, teacher, prepared, listeners)


@contextmanager
def blaming(section: str) -> Iterator[None]:
    """Say which recipe section a function's complaint about its arguments came from."""
    try:
        yield
    except VitdfqError:
        raise
    except ValueError as error:
        raise RecipeError(f"{section}: {error}") from error


def evaluate_run(folder: str | Path, overrides: list[str]) -> dict[str, Any]:
    """Load the checkpoint in `folder` and evaluate it as its recipe says, changed by `overrides`."""
    student = save_load.load(folder).to(distributed.start())
    recipe = load_recipe(Path(folder) / "recipe.yaml", overrides)
    return evaluate(student, **recipe.evaluate, run=SharedRun())


class Line:
    """The stages of one run: the inputs of each, the place of its artifact, and when the artifact is out of date."""

    def __init__(
        self, recipe: Recipe, folder: Path, teacher: nn.Module, prepared: nn.Module, listeners: Sequence[Listener] = ()
    ) -> None:
        self.recipe, self.folder, self.teacher, self.prepared = recipe, folder, teacher, prepared
        self.store = ArtifactStore(folder, listeners)
        self.device = next(teacher.parameters()).device
        weights = hashed(digest(teacher.state_dict()))
        self.teacher_inputs: Inputs = {"vitdfq": __version__, **teacher.vitdfq, "weights": weights}

    def heading(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.name,
            "vitdfq": __version__,
            "seed": self.recipe.seed,
            "device": self.device.type,
            "num_processes": distributed.count(),
        }

    def teacher_predictions(self) -> Predictions:
        """Evaluate the teacher.

        Raises:
            GateError: its top-1 on the full set is not the recipe's `reference_top1`, to 0.1: other weights, data or transform.
        """
        predictions = self._predictions("teacher", self.teacher_inputs, lambda run: self.teacher)
        top1, reference = score(predictions)["top1"], self.recipe.reference_top1
        if reference is not None and self.recipe.evaluate.get("num_images") is None and abs(top1 - reference) > 0.1:
            raise GateError(f"the teacher's top-1 is {top1:.2f}, reference_top1 is {reference:.2f}: not the same model or data")
        return predictions

    def images(self, section: dict[str, Any], name: str | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Synthesize images, or read those of an earlier run; with a summary for metrics.json.

        Only images other than the recipe's and the baselines' need a `name` for their artifact.
        """
        method = section.get("method", "sardfq")
        name = name or ("images" if section is self.recipe.synthesize else f"stages/{method}_images")

        def make(run: SharedRun) -> Tensors:
            with blaming("synthesize"):
                return {"images": synthesize(self.teacher, **section, run=run)}

        inputs = self.teacher_inputs | {"synthesize": _shaping(section)}
        tensors, seconds = self.store.get_or_make(f"{name}.safetensors", inputs, make)
        images = tensors["images"]
        steps = section.get("steps", METHODS[method].steps)
        # Steps of a generator see other images each; those of a mixture some of the images.
        alike = section.get("engine", METHODS[method].engine) == "images" and not section.get("mix", METHODS[method].mix)
        summary = {"method": method, "num_images": len(images), "steps": steps, "seconds": seconds}
        summary["image_steps_per_second"] = round(len(images) * steps / seconds, 1) if steps and alike and seconds else None
        return images, summary

    def student(self, images: Tensor) -> tuple[nn.Module, float]:
        """Calibrate and save the student, or load the one that an earlier run saved; with the seconds of its calibration.

        Raises:
            GateError: it agrees too little with the teacher. A checkpoint that is there already stays.
        """
        inputs = self._student_inputs(images)
        done, run = self.store.seconds(save_load.WEIGHTS, inputs), self.store.run(save_load.WEIGHTS, inputs)
        if done is None:
            student, seconds = self._calibrated(images, run), run.parts.seconds()
        else:
            student, seconds = save_load.load(self.folder).to(self.device), done
        gates.check_alive(student, self.prepared, images, self.recipe.min_agreement)  # each time: the gate may have been raised
        if done is None:
            save_load.save(student, self.folder)
            self.store.finish(save_load.WEIGHTS, inputs, seconds, beside=(save_load.CONFIG,))
        run.forget()  # also where it was finished: the process may have been killed right after that
        return student, seconds

    def size(self) -> dict[str, int]:
        packed = distributed.from_main(lambda: (self.folder / save_load.WEIGHTS).stat().st_size)
        return {"float_bytes": save_load.float_bytes(self.teacher), "packed_bytes": packed}

    def evaluated(self, student: nn.Module, images: Tensor) -> dict[str, Any]:
        """Top-1 and the rest of teacher, student and the students of the baselines."""
        teacher = self.teacher_predictions()
        rows = {"student": self._predictions("student", self._student_inputs(images), lambda run: student)}
        for method in self.recipe.baselines:
            other, _ = self.images(self._baseline_section(method, len(images)))
            rows[method] = self._predictions(
                method, self._student_inputs(other), lambda run, other=other: self._calibrated(other, run)
            )
        scores = {name: score(predictions, teacher.logits) for name, predictions in rows.items()}
        return {
            "teacher": {"name": self.recipe.model["name"]} | score(teacher),
            "student": scores.pop("student") | bits_of(student),
            "baselines": scores,
        }

    def judged(self, images: Tensor, name: str, seed: int) -> tuple[Predictions, float]:
        """Predictions of a student calibrated with `seed`, which is not kept; and the seconds that its calibration took."""

        def make(run: SharedRun) -> Tensors:
            student = self._calibrated(images, run.part("student"), seed=seed)
            calibration = run.resume("calibration")
            if calibration is None:  # else it was finished before an interruption, and now only read
                calibration = {"calibration_seconds": torch.tensor(run.parts.seconds(), dtype=torch.float64)}
                run.checkpoint("calibration", calibration)
            return self._predicted(name, student, run) | calibration

        inputs = self._student_inputs(images, seed=seed) | {"evaluate": _shaping(self.recipe.evaluate)}
        tensors, _ = self.store.get_or_make(f"stages/{name}_predictions.safetensors", inputs, make)
        return Predictions(tensors["logits"], tensors["labels"]), tensors["calibration_seconds"].item()

    def _baseline_section(self, method: str, num_images: int) -> dict[str, Any]:
        return {"method": method, "num_images": num_images, "seed": self.recipe.synthesize.get("seed", 0)}

    def _calibrated(self, images: Tensor, run: Run, **changes: Any) -> nn.Module:
        student = quantize(self.prepared, **self.recipe.quantize)
        with blaming("calibrate"):
            return calibrate(student, self.prepared, images, **self.recipe.calibrate | changes, run=run)

    def images_inputs(self, images: Tensor) -> Inputs:
        """What shapes all that is made of these images and the teacher."""
        return self.teacher_inputs | {"images": hashed(digest({"images": images}))}

    def _student_inputs(self, images: Tensor, **changes: Any) -> Inputs:
        recipe = self.recipe
        sections = {"prepare": recipe.prepare, "quantize": recipe.quantize, "calibrate": recipe.calibrate | changes}
        return self.images_inputs(images) | sections

    def _predictions(self, name: str, inputs: Inputs, model: Callable[[SharedRun], nn.Module]) -> Predictions:
        inputs = inputs | {"evaluate": _shaping(self.recipe.evaluate)}
        file = f"stages/{name}_predictions.safetensors"
        tensors, _ = self.store.get_or_make(file, inputs, lambda run: self._predicted(name, model(run.part("student")), run))
        return Predictions(tensors["logits"], tensors["labels"])

    def _predicted(self, name: str, model: nn.Module, run: SharedRun) -> Tensors:
        """A model's logits and the labels, as tensors of an artifact."""
        logger.info(f"evaluate: {name}")
        predictions = predict(model, **self.recipe.evaluate, run=run.part("predictions"))
        return {"logits": predictions.logits, "labels": predictions.labels}


def _shaping(section: dict[str, Any]) -> dict[str, Any]:
    """A section without the keys that change speed and memory only."""
    return {key: value for key, value in section.items() if key not in ("batch_size", "num_workers", "streaming")}
