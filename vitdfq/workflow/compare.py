"""`vitdfq compare`: several kinds of images on one model and bit-width, in one table. What is finished is not made again."""

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

from vitdfq.common.errors import one_line
from vitdfq.common.files import fingerprint, write_text
from vitdfq.common.version import __version__
from vitdfq.data import unseen_images
from vitdfq.evaluation import Predictions, score
from vitdfq.recipe import Recipe, load_recipe
from vitdfq.recipe.comparison import Comparison, Row, check_agreement, comparison_of, rows_of
from vitdfq.reports import image_grid, tables
from vitdfq.reports.plots import plot_attention, plot_comparison
from vitdfq.runtime import distributed
from vitdfq.runtime.run import Tensors
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.synthesis import quality
from vitdfq.synthesis.attention_maps import attention_maps, attention_priors
from vitdfq.workflow.artifacts import Inputs, hashed
from vitdfq.workflow.run import Line, blaming, open_line

logger = logging.getLogger(__name__)

REAL = Row("real images (reference, uses data)", None)
LOOKED_AT = 4  # images whose attention is plotted
CHARTS = ("top1", "agreement", "logits_sqnr_db", "class_confidence", "diversity", "layer_norm_distance")


def compare(
    recipes: Sequence[str | Path | dict[str, Any]],
    *,
    out: str | Path | None = None,
    overrides: Sequence[str] = (),
    fresh: bool = False,
) -> dict[str, Any]:
    """Compare the images of recipes, and of the methods that their sections `compare` name; return what compare.json holds.

    A method that fails becomes a row with its error, the others go on; "failed" lists their titles.

    Args:
        recipes: paths, names or contents of recipes that differ in their images only.
        out: folder for the results, `runs/compare_<names>` when None. A finished stage found there is used again.
        overrides: `section.key=value` texts, applied to every recipe.
        fresh: forget what an earlier comparison left in `out`.

    Raises:
        RecipeError, InputError, AccessError, GateError: see `vitdfq.common.errors`.
    """
    loaded = [load_recipe(recipe, list(overrides)) for recipe in recipes]
    check_agreement(loaded)
    options, rows = comparison_of(loaded), rows_of(loaded)
    names = "_".join(recipe.name for recipe in loaded)
    name = names if names.startswith("compare_") else f"compare_{names}"
    with open_line(replace(loaded[0], name=name), out, fresh) as line:
        return _table(Table(line, options), loaded, rows)


def _table(table: "Table", loaded: list[Recipe], rows: list[Row]) -> dict[str, Any]:
    """Fill the table, write and draw it."""
    if table.options.real_images:
        table.real_images(len(table.seeds) - 1)  # now, not after the syntheses: the set may have too few
        rows = [*rows, REAL]
    cells = [table.cell(row, seed) for row in rows for seed in range(len(table.seeds))]
    content = table.content(loaded, rows, cells)
    folder = table.line.folder
    write_text(folder / "compare.json", json.dumps(content, indent=2) + "\n")
    write_text(folder / "compare.md", tables.markdown(content))
    charts = {key: tables.COLUMNS[key][0] for key in CHARTS}
    chart = lambda path: plot_comparison(content["rows"], charts, tables.title(content), content["teacher"], path)  # noqa: E731
    table.drawn("compare.png", {"content": hashed(fingerprint(content))}, chart)
    return content


@dataclass
class Table:
    """The cells of one comparison: a row of images at a seed."""

    line: Line
    options: Comparison

    def __post_init__(self) -> None:
        self.teacher: Predictions = self.line.teacher_predictions()  # first: data that cannot be read must not cost a synthesis

    @property
    def seeds(self) -> list[int]:
        return self.options.seeds or []

    def cell(self, row: Row, index: int) -> dict[str, Any]:
        """Numbers of one row at seed number `index`, or {"row", "seed", "error"} if its method fails."""
        seed, slug = self.seeds[index], slug_of(row)
        cell: dict[str, Any] = {"row": row.title, "seed": seed}
        logger.info(f"compare: {row.title}, seed {seed}")
        try:
            if row.section is None:
                images, seconds = self.real_images(index), None
            else:
                images, summary = self.line.images(row.section | {"seed": seed}, f"stages/{slug}_{seed}_images")
                seconds = summary["seconds"]
            inputs = self.line.images_inputs(images)
            if index == 0:
                self.look(row, images, inputs)
            predictions, calibration = self.line.judged(images, f"{slug}_{seed}", seed)
            scores = score(predictions, self.teacher.logits)
            measures = self.measures(images, inputs, f"{slug}_{seed}")
        except OSError:  # the disk, not the method
            raise
        except Exception as error:  # one method's failure is a result of the comparison
            if os.environ.get("VITDFQ_DEBUG") or not distributed.failed_in_all():
                raise
            text = one_line(error, most=None)
            logger.info(f"compare: {row.title}, seed {seed} failed: {text}")
            return cell | {"error": text}
        numbers = {key: scores[key] for key in ("top1", "top5", "agreement", "kl", "logits_sqnr_db")} | measures
        return cell | {"num_images": len(images), **numbers, "synthesis_seconds": seconds, "calibration_seconds": calibration}

    def real_images(self, index: int) -> Tensor:
        """Images of the recipe's data set that are not evaluated, others for each seed; their labels are not looked at."""
        said = {"dataset": "imagenet-1k", "split": "validation"} | self.line.recipe.evaluate
        asked = {"dataset": said["dataset"], "split": said["split"], "evaluated": said.get("num_images")}
        asked |= {"count": self.options.real_images, "block": index}

        def make(run: SharedRun) -> Tensors:
            with blaming("compare.real_images"):
                return {"images": unseen_images(self.line.teacher, **asked)}

        inputs = self.line.teacher_inputs | {"real_images": asked}
        return self.line.store.get_or_make(f"stages/real_{self.seeds[index]}_images.safetensors", inputs, make)[0]["images"]

    def measures(self, images: Tensor, inputs: Inputs, name: str) -> dict[str, float | None]:
        """What the teacher says about the images without labels."""

        def make(run: SharedRun) -> Tensors:
            found = quality(self.line.teacher, images)
            return {
                name: torch.tensor(float("nan") if value is None else value, dtype=torch.float64) for name, value in found.items()
            }

        found, _ = self.line.store.get_or_make(f"stages/{name}_quality.safetensors", inputs, make)
        return {name: None if value.isnan() else value.item() for name, value in sorted(found.items())}

    def look(self, row: Row, images: Tensor, inputs: Inputs) -> None:
        """Draw the grid of a row's images, and the attention of the first of them beside the priors they followed."""
        teacher, (grid, attention) = self.line.teacher, pictures_of(row)
        self.drawn(grid, inputs, lambda path: image_grid.save_grid(teacher, images, path))

        def draw(path: Path) -> None:
            shown = images[:LOOKED_AT]
            section = None if row.section is None else row.section | {"seed": self.seeds[0]}
            priors = None if section is None else attention_priors(teacher, len(shown), section)
            plot_attention(image_grid.pixels_of(teacher, shown), attention_maps(teacher, shown), priors, path)

        self.drawn(attention, inputs | {"synthesize": row.section}, draw)

    def drawn(self, name: str, inputs: Inputs, draw: Callable[[Path], None]) -> None:
        """Draw a picture unless it is there and shaped by the same inputs; without matplotlib there may be none."""
        if self.line.store.seconds(name, inputs) is None:
            path, start = self.line.folder / name, time.monotonic()
            if distributed.is_main():
                path.unlink(missing_ok=True)
            draw(path)
            if path.is_file():
                self.line.store.finish(name, inputs, round(time.monotonic() - start, 2))

    def content(self, recipes: list[Recipe], rows: list[Row], cells: list[dict[str, Any]]) -> dict[str, Any]:
        """What compare.json holds."""
        recipe = self.line.recipe
        summaries = []
        for row in rows:
            own = tables.summarize(cell for cell in cells if cell["row"] == row.title)
            pictures = [path for path in pictures_of(row) if (self.line.folder / path).is_file() and own["n"]]
            method = None if row.section is None else row.section["method"]
            summaries.append(
                {"title": row.title, "method": method, "uses_data": row.section is None, **own, "pictures": pictures}
            )
        return {
            "recipes": {recipe.name: recipe.to_dict() for recipe in recipes},
            "vitdfq": __version__,
            "device": self.line.device.type,
            "bits": recipe.quantize.get("bits", "w4a4"),
            "seeds": self.seeds,
            "teacher": {"name": recipe.model["name"]} | score(self.teacher),
            "rows": summaries,
            "cells": cells,
            "failed": [row["title"] for row in summaries if row["error"]],
        }


def slug_of(row: Row) -> str:
    """A row's name in file names: no two rows share one, as names of recipes and methods hold no "+"."""
    if row.section is None:
        return "real"
    name = re.sub(r"[^\w.-]+", "+", row.title).strip("+")
    return "real+" if name == "real" else name  # a recipe may be called so


def pictures_of(row: Row) -> list[str]:
    """Grid and attention maps, as paths in the folder of results."""
    return [f"grids/{slug_of(row)}.png", f"attention/{slug_of(row)}.png"]
