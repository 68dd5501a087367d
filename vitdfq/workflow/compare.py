"""`vitdfq compare`: several kinds of images on one model and bit-width, in one table. Finished artifacts are used again."""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitdfq.common.errors import RecipeError, one_line
from vitdfq.common.files import fingerprint, write_text
from vitdfq.common.version import __version__
from vitdfq.data import unseen_images
from vitdfq.evaluation import AnyPredictions, summarize
from vitdfq.models import attention_sites
from vitdfq.recipe import Recipe, load_recipe
from vitdfq.recipe.comparison import Comparison, Row, check_agreement, comparison_of, rows_of
from vitdfq.recipe.teacher import errors_of_section
from vitdfq.reports import image_grid, tables
from vitdfq.reports.attention import save_attention, teacher_attention
from vitdfq.reports.comparison_page import write_comparison_page
from vitdfq.reports.page import FILE as REPORT
from vitdfq.reports.plots import comparison_chart
from vitdfq.runtime import distributed
from vitdfq.runtime.run import Tensors
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.synthesis import quality
from vitdfq.workflow.artifacts import Inputs, mark_hash
from vitdfq.workflow.run import open_run, say_written
from vitdfq.workflow.stages import RunStages

logger = logging.getLogger(__name__)

REAL = Row("real images (reference, uses data)", None)
NOT_CHARTED = ("num_images", "synthesis_seconds", "calibration_seconds")


def compare(
    recipes: Sequence[str | Path | dict[str, Any]],
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    fresh: bool = False,
) -> dict[str, Any]:
    """Compare the images of recipes, and of the methods in their sections `compare`; return the content of compare.json.

    A method that fails becomes a row with its error, and the other rows are computed; "failed" lists the titles of such rows.

    Args:
        recipes: paths, names or contents of recipes that differ in their images only.
        out: folder for the results, `runs/compare_<names>` when None. Finished stages in it are used again.
        overrides: `section.key=value` texts, applied to every recipe.
        fresh: remove the results of earlier comparisons from `out` first.

    Raises:
        RecipeError, InputError, AccessError, GateError: see `vitdfq.common.errors`.
    """
    loaded = [load_recipe(recipe, list(overrides)) for recipe in recipes]
    check_agreement(loaded)
    options, rows = comparison_of(loaded), rows_of(loaded)
    names = "_".join(recipe.name for recipe in loaded)
    name = names if names.startswith("compare_") else f"compare_{names}"
    with open_run(replace(loaded[0], name=name), out, fresh) as stages:
        stages.num_stages = 1 + (len(rows) + bool(options.real_images)) * len(options.seeds or [])
        content = _run_comparison(ComparisonTable(stages, options), loaded, rows)
        say_written(stages.folder, ["compare.md", "compare.json", "compare.png", REPORT, "grids/", "attention/"])
        return content


def _run_comparison(table: "ComparisonTable", recipes: list[Recipe], rows: list[Row]) -> dict[str, Any]:
    """Compute the cells of the table; write it as JSON, markdown and a chart."""
    if table.options.real_images:
        table.make_real_images(len(table.seeds) - 1)  # first: a data set with too few images must not cost a synthesis
        rows = [*rows, REAL]
    cells = [table.compute_cell(row, index) for row in rows for index in range(len(table.seeds))]
    content = table.summarize(recipes, rows, cells)
    folder = table.stages.folder
    if distributed.is_main():
        write_text(folder / "compare.json", json.dumps(content, indent=2) + "\n")
        write_text(folder / "compare.md", tables.markdown(content))
    measured = {key for row in content["rows"] for key, value in row["mean"].items() if value is not None}
    columns = tables.columns_in(content).items()
    charts = {key: heading for key, (heading, _) in columns if key in measured and key not in NOT_CHARTED}
    chart = None
    if charts:  # no row has a score if all of them failed
        chart = comparison_chart(content["rows"], charts, tables.title(content), content["teacher"])
        table.draw("compare.png", {"content": mark_hash(fingerprint(content))}, chart.save_png)
    if distributed.is_main():
        write_comparison_page(folder, content, chart, {recipe.name: recipe.to_yaml() for recipe in recipes})
    return content


@dataclass
class ComparisonTable:
    """Computes the cells of one comparison; a cell is a row of the table at one seed."""

    stages: RunStages
    options: Comparison

    def __post_init__(self) -> None:
        self.stages.begin(f"evaluate the teacher, {self.stages.recipe.model['name']}")
        teacher = self.stages.predict_teacher()  # first: data that cannot be read must not cost a synthesis
        if teacher is None:
            raise RecipeError(f"compare: {self.stages.recipe.evaluation.why_none(self.stages.teacher)}")
        self.teacher: AnyPredictions = teacher

    @property
    def seeds(self) -> list[int]:
        return self.options.seeds or []

    def compute_cell(self, row: Row, index: int) -> dict[str, Any]:
        """Scores of a row at the seed number `index`, or {"row", "seed", "error"} if its method fails."""
        seed, slug = self.seeds[index], slug_of(row)
        cell: dict[str, Any] = {"row": row.title, "seed": seed}
        self.stages.begin(f"{row.title}, seed {seed}")
        try:
            if row.section is None:
                images, seconds = self.make_real_images(index), None
            else:
                images, summary = self.stages.make_images(row.section | {"seed": seed}, f"stages/{slug}_{seed}_images")
                seconds = summary["seconds"]
            inputs = self.stages.images_inputs(images)
            if index == 0:
                self.draw_images(row, images, inputs)
            predictions, calibration = self.stages.evaluate_unsaved_student(images, f"{slug}_{seed}", seed)
            scores = summarize(predictions, self.teacher)
            measures = self.measure_quality(images, inputs, f"{slug}_{seed}")
        except OSError:  # the disk, not the method
            raise
        except Exception as error:  # one method's failure is a result of the comparison
            if os.environ.get("VITDFQ_DEBUG") or not distributed.failed_in_all():
                raise
            text = one_line(error, most=None)
            logger.info(f"compare: {row.title}, seed {seed} failed: {text}")
            return cell | {"error": text}
        numbers = {key: value for key, value in scores.items() if key not in ("num_images", "read_by")} | measures
        return cell | {"num_images": len(images), **numbers, "synthesis_seconds": seconds, "calibration_seconds": calibration}

    def make_real_images(self, index: int) -> Tensor:
        """Real images (N, 3, H, W) for the seed number `index`, without labels.

        They come from the recipe's data set. No image of them is evaluated, and none is used for two seeds.
        """
        options = self.stages.recipe.evaluation
        selection: dict[str, Any] = {"dataset": options.dataset_of(self.stages.teacher), "split": options.split}
        selection |= {"evaluated": options.num_images, "count": self.options.real_images, "block": index} | options.reading
        if self.stages.gives == "features":
            selection["has_classes"] = False

        def make(run: SharedRun) -> Tensors:
            with errors_of_section("compare.real_images"):
                return {"images": unseen_images(self.stages.teacher, **selection)}

        inputs = self.stages.teacher_inputs | {"real_images": selection}
        return self.stages.store.get_or_make(f"stages/real_{self.seeds[index]}_images.safetensors", inputs, make)[0]["images"]

    def measure_quality(self, images: Tensor, inputs: Inputs, name: str) -> dict[str, float | None]:
        """The measures of `vitdfq.synthesis.quality`, which need the teacher and no labels."""

        def make(run: SharedRun) -> Tensors:
            values = quality(self.stages.teacher, images).items()
            return {key: torch.tensor(float("nan") if value is None else value, dtype=torch.float64) for key, value in values}

        measures, _ = self.stages.store.get_or_make(f"stages/{name}_quality.safetensors", inputs, make)
        return {key: None if value.isnan() else value.item() for key, value in sorted(measures.items())}

    def draw_images(self, row: Row, images: Tensor, inputs: Inputs) -> None:
        """Draw the grid of a row's images, and the attention on the first of them beside the priors of their synthesis."""
        teacher, (grid, attention) = self.stages.teacher, pictures_of(row)
        self.draw(grid, inputs, lambda path: image_grid.save_grid(teacher, images, path))

        def draw_attention(path: Path) -> None:
            section = None if row.section is None else row.section | {"seed": self.seeds[0]}
            save_attention(teacher, images, teacher_attention(teacher, images, section), path)

        if attention_sites(teacher):  # a picture of what is known only
            self.draw(attention, inputs | {"synthesize": row.section}, draw_attention)

    def draw(self, name: str, inputs: Inputs, draw: Callable[[Path], None]) -> None:
        """Draw a picture, unless an earlier run drew it from the same inputs. Without matplotlib `draw` may write no file."""
        if self.stages.store.finished_seconds(name, inputs) is None:
            path, start = self.stages.folder / name, time.monotonic()
            if not distributed.is_main():
                return
            path.unlink(missing_ok=True)
            draw(path)
            if path.is_file():
                self.stages.store.finish(name, inputs, round(time.monotonic() - start, 2))

    def summarize(self, recipes: list[Recipe], rows: list[Row], cells: list[dict[str, Any]]) -> dict[str, Any]:
        """The content of compare.json."""
        recipe = self.stages.recipe
        columns, summaries = tables.columns_of(self.stages.gives, self.stages.read_by), []
        for row in rows:
            summary = tables.summarize((cell for cell in cells if cell["row"] == row.title), columns)
            pictures = [path for path in pictures_of(row) if (self.stages.folder / path).is_file() and summary["n"]]
            method = None if row.section is None else row.section["method"]
            summaries.append(
                {"title": row.title, "method": method, "uses_data": row.section is None, **summary, "pictures": pictures}
            )
        ranked = tables.ranked(summaries)
        return {
            "recipes": {recipe.name: recipe.to_dict() for recipe in recipes},
            "vitdfq": __version__,
            "device": self.stages.device.type,
            "bits": recipe.bits,
            **self.stages.named_by(),
            "seeds": self.seeds,
            "teacher": {"name": recipe.model["name"]} | summarize(self.teacher),
            "rows": ranked,
            "cells": cells,
            "failed": [row["title"] for row in ranked if row["error"]],
        }


def slug_of(row: Row) -> str:
    """A row's name in file names. It is unique, since names of recipes and methods contain no "+"."""
    if row.section is None:
        return "real"
    name = re.sub(r"[^\w.-]+", "+", row.title).strip("+")
    return "real+" if name == "real" else name  # a recipe may have this name


def pictures_of(row: Row) -> list[str]:
    """Grid and attention maps, as paths in the folder of results."""
    return [f"grids/{slug_of(row)}.png", f"attention/{slug_of(row)}.png"]
