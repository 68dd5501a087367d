"""The stages of one run: the inputs of each, and its artifact, which is used again while the inputs stay the same."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.calibration import calibrate
from vitdfq.checkpoint import save_load
from vitdfq.common.errors import GateError
from vitdfq.common.files import sha256
from vitdfq.common.safetensors_io import digest, write_tensors
from vitdfq.common.version import __version__
from vitdfq.evaluation import AnyPredictions, no_score, predict, predictions_of, summarize
from vitdfq.evaluation.features import gives_vectors
from vitdfq.models import gives
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import bits_of, named_by
from vitdfq.recipe import Recipe
from vitdfq.recipe.teacher import errors_of_section
from vitdfq.reports import gates
from vitdfq.runtime import distributed, interrupt
from vitdfq.runtime.progress import Listener
from vitdfq.runtime.run import Run, Tensors
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.synthesis import synthesize
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.synthesize import keep_batches
from vitdfq.workflow.artifacts import ArtifactStore, Inputs, mark_hash, without_cost_options
from vitdfq.workflow.image_summary import image_summary

logger = logging.getLogger(__name__)


class RunStages:
    """The stages of one run: the inputs of each, and the file of its artifact, which is used again while the inputs stay."""

    def __init__(
        self, recipe: Recipe, folder: Path, teacher: nn.Module, prepared: nn.Module, listeners: Sequence[Listener] = ()
    ) -> None:
        self.recipe, self.folder, self.teacher, self.prepared = recipe, folder, teacher, prepared
        self.stage = self.num_stages = 0
        self.device = next(teacher.parameters()).device
        self.store = ArtifactStore(folder, listeners, self.device)
        weights = mark_hash(digest(teacher.state_dict()))
        description: Any = teacher.vitdfq
        self.teacher_inputs: Inputs = {"vitdfq": __version__, **description, "weights": weights}
        self.gives = gives(teacher)
        # Tokens are too large to keep: student and teacher are compared while they run.
        self.compares_in_pass = self.gives == "features" and self.evaluates and not gives_vectors(teacher)

    @property
    def evaluates(self) -> bool:
        """Whether there are images to evaluate on."""
        return self.recipe.evaluation.dataset_of(self.teacher) is not None

    @property
    def read_by(self) -> str | None:
        """What reads the classes of the evaluated images; None: nothing does."""
        return self.recipe.evaluation.read_by(self.teacher)

    def begin(self, title: str) -> None:
        """Begin the next stage of `num_stages`: all before it are finished."""
        self.stage += 1
        interrupt.kept.begin_stage(self.stage, self.num_stages)
        logger.info(f"stage {self.stage} of {self.num_stages}: {title}")

    def count(self, until: str) -> int:
        """How many stages a run has up to `until`: see `run` and `evaluate`."""
        if until != "metrics" or not self.evaluates:
            return 1 if until == "images" else 2
        num_baselines, num_bits = len(self.recipe.baselines), len(self.recipe.also_bits)
        return 4 + 2 * num_baselines + num_bits * (1 + num_baselines)

    def header(self) -> dict[str, Any]:
        """The first entries of metrics.json."""
        return {
            "recipe": self.recipe.name,
            "vitdfq": __version__,
            "seed": self.recipe.seed,
            "device": self.device.type,
            "num_processes": distributed.count(),
        }

    def predict_teacher(self) -> AnyPredictions | None:
        """The teacher's predictions; None if there is nothing to evaluate on.

        Raises:
            GateError: its top-1 on the full set differs from the recipe's `reference_top1` by more than 0.1, which means other
                weights, data or another transform.
        """
        if not self.evaluates:
            return None
        predictions = self._make_predictions("teacher", self.teacher_inputs, lambda run: self.teacher)
        top1, reference = summarize(predictions)["top1"], self.recipe.reference_top1
        if reference is None or self.recipe.evaluation.num_images is not None:
            return predictions
        if top1 is None:
            why = "the data set has no labels" if self.read_by else "nothing reads classes from the features"
            logger.info(f"reference_top1 is not checked: {why}")
        elif abs(top1 - reference) > 0.1:
            raise GateError(f"the teacher's top-1 is {top1:.2f}, reference_top1 is {reference:.2f}: not the same model or data")
        return predictions

    def make_images(self, section: dict[str, Any], name: str | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Synthesize images, or read those of an earlier run.

        Args:
            section: keyword arguments of `synthesize`.
            name: of the artifact, without its suffix; None for the images of the recipe and its baselines.

        Returns:
            images (N, 3, H, W) and a summary for metrics.json.
        """
        with errors_of_section("synthesize"):
            options = SynthesisOptions(**section)
        name = name or ("images" if section is self.recipe.synthesize else f"stages/{options.method}_images")

        if options.images is not None:
            return self._read_images(section, options, f"{name}.safetensors")
        inputs = self.synthesis_inputs(section)
        parts_inputs = self.teacher_inputs | {"synthesize": without_cost_options(section, "num_images")}

        def make(run: SharedRun) -> Tensors:
            with errors_of_section("synthesize"):
                self._keep_images(f"{name}.safetensors", inputs, options, run)
                return {"images": synthesize(self.teacher, **section, run=run)}

        tensors, seconds = self.store.get_or_make(f"{name}.safetensors", inputs, make, parts_inputs)
        images = tensors["images"]
        return images, image_summary(self.teacher, options, len(images), seconds)

    def _read_images(self, section: dict[str, Any], options: SynthesisOptions, file: str) -> tuple[Tensor, dict[str, Any]]:
        """Read the user's own images, each time: they may have changed. Their copy in the folder is what the student saw."""
        with errors_of_section("synthesize"):
            images = distributed.agreed({"images": synthesize(self.teacher, **section)})["images"]
        if distributed.is_main():
            write_tensors(self.folder / file, {"images": images})
        return images, image_summary(self.teacher, options, len(images), seconds=0.0)

    def synthesis_inputs(self, section: dict[str, Any]) -> Inputs:
        """The inputs of images that are synthesized with these keyword arguments."""
        return self.teacher_inputs | {"synthesize": without_cost_options(section)}

    def _keep_images(self, file: str, inputs: Inputs, options: SynthesisOptions, run: SharedRun) -> None:
        """Use the images of an earlier run again that differs in their number alone; the clock goes on with their time."""
        earlier = self.store.read_despite(file, inputs, "synthesize.num_images")
        if earlier is None:
            return
        images, seconds = earlier[0]["images"], earlier[1]
        if num_kept := keep_batches(images, self.teacher, options, run):
            run.parts.begin_with(seconds * num_kept / len(images))
            logger.info(f"{file}: {num_kept} of its {len(images)} images are used again")

    def make_student(self, images: Tensor) -> tuple[nn.Module, float]:
        """Calibrate and save the student, or load the one that an earlier run saved.

        Returns:
            the student and the seconds of its calibration.

        Raises:
            GateError: it agrees too little with the teacher. An earlier checkpoint stays in the folder.
        """
        inputs = self.student_inputs(images)
        finished_seconds = self.store.finished_seconds(save_load.WEIGHTS, inputs)
        run = self.store.run_of(save_load.WEIGHTS, inputs)
        if finished_seconds is None:
            student, seconds = self._calibrate_student(images, run), run.parts.seconds()
        else:
            student, seconds = save_load.load(self.folder).to(self.device), finished_seconds
        least = {"min_agreement": self.recipe.min_agreement, "min_cosine": self.recipe.min_cosine}
        gates.check_student(student, self.prepared, images, **least)  # always: the gate may have been raised
        if finished_seconds is None:
            save_load.save(student, self.folder)
            self.store.finish(save_load.WEIGHTS, inputs, seconds, beside=(save_load.CONFIG,))
        run.forget()  # also if it was finished before: that process may have been killed right after it
        return student, seconds

    def sizes(self) -> dict[str, int]:
        """Bytes of the teacher's parameters in float32, and of the packed checkpoint."""
        packed = distributed.from_main(lambda: (self.folder / save_load.WEIGHTS).stat().st_size)
        return {"float_bytes": save_load.float_bytes(self.teacher), "packed_bytes": packed}

    def evaluate(self, student: nn.Module, images: Tensor, teacher: AnyPredictions | None) -> dict[str, Any]:
        """Scores (see `vitdfq.evaluation.summarize`) of teacher, student and a student of each baseline; students at other bits.

        They are None without predictions of the teacher, and those that need labels where there are none.
        """
        recipe = self.recipe
        images_of = {"student": images}
        for method in recipe.baselines if teacher else ():  # without data their images would serve nothing
            self.begin(f"synthesize images of baseline {method}")
            images_of[method], _ = self.make_images(self._baseline_section(method, len(images)))
        scores: dict[str, dict[str, Any]] = {name: no_score(self.gives) for name in ("student", *recipe.baselines)}
        other_bits = {bits: dict(scores) for bits in recipe.also_bits}
        teacher_score = {"top1": None, "top5": None, "num_images": None}
        if teacher:
            teacher_score = summarize(teacher)
            self.begin(f"evaluate the student at {recipe.bits.upper()}")
            saved = self._make_predictions("student", self.student_inputs(images), lambda run: student)
            scores["student"] = summarize(saved, teacher)
            for method in recipe.baselines:
                scores[method] = self._score_student(method, images_of[method], teacher)
            for bits, rows in other_bits.items():
                rows |= {name: self._score_student(name, images_of[name], teacher, bits) for name in images_of}
                rows["student"] |= self.named_by(bits)
        return {
            "read_by": self.read_by if teacher else None,
            "teacher": {"name": recipe.model["name"]} | teacher_score,
            "student": scores.pop("student") | bits_of(student) | named_by(student),
            "baselines": scores,
            **({"also_bits": {bits: _by_role(rows) for bits, rows in other_bits.items()}} if other_bits else {}),
        }

    def _score_student(self, name: str, images: Tensor, teacher: AnyPredictions, bits: str | None = None) -> dict[str, Any]:
        """Scores of a student that is calibrated on `images`, at the recipe's bits or others, and not saved."""
        kind = "the recipe's images" if name == "student" else f"{name} images"
        self.begin(f"calibrate a student on {kind} at {(bits or self.recipe.bits).upper()}, and evaluate it")
        predictions = self._make_predictions(
            name if bits is None else f"{bits}_{name}",
            self.student_inputs(images, bits),
            lambda run: self._calibrate_student(images, run, bits),
        )
        return summarize(predictions, teacher)

    def evaluate_unsaved_student(self, images: Tensor, name: str, seed: int) -> tuple[AnyPredictions, float]:
        """Calibrate a student with `seed` and evaluate it, without a checkpoint.

        Returns:
            its predictions and the seconds of its calibration.
        """

        def make(run: SharedRun) -> Tensors:
            student = self._calibrate_student(images, run.part("student"), seed=seed)
            calibration = run.resume("calibration")
            if calibration is None:  # otherwise an interrupted start finished it, and the clock went on since
                calibration = {"calibration_seconds": torch.tensor(run.parts.seconds(), dtype=torch.float64)}
                run.checkpoint("calibration", calibration)
            return self._predict(name, student, run) | calibration

        inputs = self.student_inputs(images, seed=seed) | self.evaluation_inputs()
        tensors, _ = self.store.get_or_make(f"stages/{name}_predictions.safetensors", inputs, make)
        return predictions_of(tensors, self.read_by), tensors["calibration_seconds"].item()

    def _baseline_section(self, method: str, num_images: int) -> dict[str, Any]:
        return {"method": method, "num_images": num_images, "seed": self.recipe.synthesis.seed}

    def _calibrate_student(self, images: Tensor, run: Run, bits: str | None = None, **changes: Any) -> nn.Module:
        student = quantize(self.prepared, **self._quantization(bits))
        with errors_of_section("calibrate"):
            return calibrate(student, self.prepared, images, **self.recipe.calibrate | changes, run=run)

    def images_inputs(self, images: Tensor) -> Inputs:
        """The inputs of every artifact that depends on the teacher and on these images."""
        return self.teacher_inputs | {"images": mark_hash(digest({"images": images}))}

    def evaluation_inputs(self) -> Inputs:
        """The section `evaluate`, and the content of the file that it names, if it names one."""
        file = self.recipe.evaluation.file
        content = {} if file is None else {"evaluation_file": mark_hash(sha256(file))}
        return {"evaluate": without_cost_options(self.recipe.evaluate)} | content

    def named_by(self, bits: str | None = None) -> dict[str, Any]:
        """By what, beside their bits, tables name students of the recipe, at its bits or others."""
        return named_by(quantize(self.prepared, **self._quantization(bits)))

    def _quantization(self, bits: str | None) -> dict[str, Any]:
        """The section `quantize`, at other bits if they are given."""
        return self.recipe.quantize if bits is None else self.recipe.quantize | {"bits": bits}

    def student_inputs(self, images: Tensor, bits: str | None = None, **changes: Any) -> Inputs:
        recipe = self.recipe
        sections = {"prepare": recipe.prepare, "quantize": self._quantization(bits), "calibrate": recipe.calibrate | changes}
        return self.images_inputs(images) | sections

    def _make_predictions(self, name: str, inputs: Inputs, make_model: Callable[[SharedRun], nn.Module]) -> AnyPredictions:
        inputs = inputs | self.evaluation_inputs()
        file = f"stages/{name}_predictions.safetensors"
        tensors, _ = self.store.get_or_make(file, inputs, lambda run: self._predict(name, make_model(run.part("student")), run))
        return predictions_of(tensors, self.read_by)

    def _predict(self, name: str, model: nn.Module, run: SharedRun) -> Tensors:
        """What a model gives and the labels, as the tensors of an artifact."""
        logger.info(f"evaluate: {name}")
        teacher = self.teacher if self.compares_in_pass and model is not self.teacher else None
        return predict(model, teacher=teacher, **self.recipe.evaluate, run=run.part("predictions")).tensors()


def _by_role(rows: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Scores by name, as metrics.json holds them: the student's apart from the baselines'."""
    return {"student": rows["student"], "baselines": {name: row for name, row in rows.items() if name != "student"}}
