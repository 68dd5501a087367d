"""The page of a run, reports/index.html, from the files in its folder: it can be made again without the models."""

import io
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.common.safetensors_io import read_tensors
from vitdfq.reports import attention, image_targets, run_words
from vitdfq.reports.charts import Chart, data_uri, has_matplotlib
from vitdfq.reports.expected import expected_rows
from vitdfq.reports.image_files import jpeg_uri
from vitdfq.reports.image_grid import pixels_of
from vitdfq.reports.page import FILE, NO_CHARTS, Code, Figure, Gallery, Grid, Page, Text, chart_figure
from vitdfq.reports.plots import attention_chart, losses_chart, unit_sqnr_chart
from vitdfq.reports.sqnr import UnitSqnr
from vitdfq.reports.tables import format_number, summary_table
from vitdfq.runtime.loss_recorder import losses_file

IMAGES, UNITS = "images.safetensors", "reports/unit_sqnr.json"
MAX_IMAGES = 24
SAVED_ROW = 1  # of the table of results: the teacher comes first
LARGEST_SIDE = 160  # pixels; larger images are made smaller
SECONDS_OF = {IMAGES: "images", "model.safetensors": "calibration and training"}  # artifact -> what it is


def write_run_page(folder: Path, metrics: dict[str, Any] | None = None) -> None:
    """Write the page of the run in `folder`.

    Args:
        folder: of a run.
        metrics: content of metrics.json, which may end with the images; None: it is read.

    Raises:
        InputError: `folder` is not a run's.
    """
    metrics = read_json(folder / "metrics.json") if metrics is None else metrics
    recipe = (folder / "recipe.yaml").read_text(encoding="utf-8")
    title = f"{metrics['recipe']}: {run_words.title_of(metrics)}" if "student" in metrics else metrics["recipe"]
    page = Page(title, run_words.subtitle(metrics))
    page.add("Summary", Text(run_words.summary(metrics)), run_words.tiles(metrics))
    if "student" in metrics:
        page.add("Results", _results(metrics))
        page.add("Without data", *_without_data(metrics))
    page.add("Images", *_images(folder, metrics))
    page.add("Attention", *_attention(folder))
    page.add("Losses", *_losses(folder, metrics))
    if "student" in metrics:
        page.add("Error by unit", *_units(folder))
    page.add("Size, time and memory", *_cost(folder, metrics))
    page.add("Recipe", Code(recipe.rstrip()), folded=True)
    page.add("Make it again", Text(run_words.again(metrics)), Code(run_words.COMMAND))
    page.write(folder / FILE)


def _results(metrics: dict[str, Any]) -> Grid:
    """The table at the end of the run."""
    table = summary_table(metrics)
    notes = [run_words.SCORES_NOTE] if len(table.headings) > table.num_names + 1 else []
    return Grid(table.headings, table.rows, table.num_names, frozenset({SAVED_ROW}), notes)


def _without_data(metrics: dict[str, Any]) -> list[Text | Grid]:
    """How near the student is to its teacher on synthetic images, by kind, and what that lets one expect of real ones."""
    scores = metrics.get("synthetic", {})
    if not scores:
        return []
    columns = run_words.synthetic_columns(scores)
    rows = [
        [run_words.kind_title(kind), *(format_number(row.get(key), None, digits) for key, (_, digits) in columns.items())]
        for kind, row in scores.items()
    ]
    nearness = Grid(["images", *(heading for heading, _ in columns.values())], rows)
    expected = expected_rows(metrics)
    if not expected:
        return [Text([run_words.WITHOUT_DATA]), nearness]
    headings = ["on real images", "expected (interval)", "measured"]
    if not any(measured for *_, measured in expected):
        headings, expected = headings[:2], [row[:2] for row in expected]
    return [Text([run_words.EXPECTED]), Grid(headings, expected), Text([run_words.WITHOUT_DATA]), nearness]


def _images(folder: Path, metrics: dict[str, Any]) -> list[Text | Gallery]:
    path, about = folder / IMAGES, _content(folder / image_targets.FILE)
    if not path.is_file() or not about.get("images"):
        return []
    images = read_tensors(path)["images"][:MAX_IMAGES]
    names = about["names"]
    pictures = pixels_of(images, about["mean"], about["std"])
    captions = [run_words.caption(row, names) for row in about["images"]]
    gallery = Gallery([(_data_uri(pixels), caption) for pixels, caption in zip(pictures, captions, strict=False)])
    return [Text(run_words.about_images(metrics["synthesis"], about["images"], len(images))), gallery]


def _data_uri(pixels: Tensor) -> str:
    """An image (H, W, 3) of bytes: a PNG file if it is small, else a smaller JPEG file."""
    image = Image.fromarray(pixels.numpy())
    if max(image.size) > LARGEST_SIDE // 2:
        return jpeg_uri(image, (LARGEST_SIDE, LARGEST_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return data_uri("image/png", buffer.getvalue())


def _attention(folder: Path) -> list[Text | Figure]:
    """The priors of some images beside the teacher's attention on them."""
    about = _content(folder / image_targets.FILE)
    if not (folder / attention.FILE).is_file() or not about:
        return []
    maps = read_tensors(folder / attention.FILE)
    images = read_tensors(folder / IMAGES)["images"][: len(maps["maps"])]
    figure = chart_figure(attention_chart(pixels_of(images, about["mean"], about["std"]), **maps))
    return [Text([NO_CHARTS]) if figure is None else figure]


def loss_charts(folder: Path, metrics: dict[str, Any]) -> dict[str, Chart]:
    """Return the curves of synthesis, if it took steps, and of training, by the name of their PNG file.

    Args:
        folder: of the run.
        metrics: content of metrics.json, which may end with the images.
    """
    parts = [("losses_training.png", "model.safetensors", "steps", "Training of the student.")] if "student" in metrics else []
    if metrics["synthesis"]["steps"]:
        synthesis = "Synthesis: each loss, mean over the images of a step."
        parts = [("losses_synthesis.png", IMAGES, "steps of all images", synthesis), *parts]
    charts = {}
    for name, artifact, unit, caption in parts:
        curves = _content(folder / losses_file(artifact)).get("curves", {})
        if titled := run_words.curve_titles(curves, metrics["synthesis"]["method"]):
            charts[name] = losses_chart(titled, unit, caption)
    return charts


def _losses(folder: Path, metrics: dict[str, Any]) -> list[Text | Figure]:
    charts = loss_charts(folder, metrics).values()
    if not charts:
        return []
    figures = [figure for chart in charts if (figure := chart_figure(chart)) is not None]
    return [Text([run_words.LOSSES if has_matplotlib() else NO_CHARTS]), *figures]


def _units(folder: Path) -> list[Text | Figure | Grid]:
    errors = {name: UnitSqnr(**error) for name, error in _content(folder / UNITS).items()}
    if not errors:
        return []
    if (figure := chart_figure(unit_sqnr_chart(errors))) is not None:
        return [figure]
    rows = [[name, f"{error.own:.1f}", f"{error.so_far:.1f}"] for name, error in errors.items()]
    return [Text([NO_CHARTS]), Grid(["unit", "SQNR dB, this unit alone", "all units so far"], rows)]


def _cost(folder: Path, metrics: dict[str, Any]) -> list[Grid]:
    """Bytes of the models, and what each artifact took."""
    grids = []
    if "size" in metrics:
        sizes = (("parameters in float32", "float_bytes"), ("packed checkpoint", "packed_bytes"))
        grids.append(Grid(["file", "MB"], [[title, f"{metrics['size'][key] / 1e6:.2f}"] for title, key in sizes]))
    rows = []
    for name, entry in _content(folder / "stages/finished.json").items():
        peak = entry.get("peak_bytes")
        title = SECONDS_OF.get(name) or Path(name).stem.replace("_", " ")
        rows.append([title, f"{entry['seconds']:,.1f}", "" if peak is None else f"{peak / 1e9:.2f}"])
    if rows:
        grids.append(Grid(["stage", "seconds", "peak GB so far"], rows, notes=[run_words.MEMORY_NOTE]))
    return grids


def _content(path: Path) -> dict[str, Any]:
    """The content of a JSON file; {} if it is not there or damaged: a page is made of what there is."""
    try:
        return read_json(path) if path.is_file() else {}
    except InputError:
        return {}
