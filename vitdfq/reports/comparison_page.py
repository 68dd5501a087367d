"""The page of `vitdfq compare` over recipes, reports/index.html: the table, the chart, images and attention of each row."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from vitdfq.reports import tables
from vitdfq.reports.charts import Chart
from vitdfq.reports.image_files import jpeg_uri
from vitdfq.reports.page import FILE, NO_CHARTS, Code, Figure, Grid, Page, Text, chart_figure

LARGEST_WIDTH = 960  # pixels of a picture in the page


def write_comparison_page(folder: Path, content: dict[str, Any], chart: Chart | None, recipes: Mapping[str, str]) -> None:
    """Write the page of a comparison.

    Args:
        folder: of the comparison, with the pictures that `content` names.
        content: of compare.json.
        chart: of the scores; None: no row has any.
        recipes: name -> YAML.
    """
    headings, *rows = tables.text_rows(content)
    teacher, bits = content["teacher"]["name"], tables.bits_title(content["bits"], **tables.named_by(content))
    page = Page(tables.title(content), f"vitdfq {content['vitdfq']}, {content['device']}")
    page.add("Summary", Text(_summary(content, teacher, bits)))
    page.add("Results", Grid(headings, rows, notes=tables.notes(content).splitlines()))
    if chart is not None:
        page.add("Charts", chart_figure(chart) or Text([NO_CHARTS]))
    for row in content["rows"]:
        page.add(f"Images of {row['title']}", *(_picture(folder / path) for path in row["pictures"]))
    page.add("Recipes", *(Code(text.rstrip()) for text in recipes.values()), folded=True)
    files = " ".join(f"{name}.yaml" for name in recipes)
    page.add("Make it again", Text([f"With the recipes above, saved as {files}."]), Code(f"vitdfq compare {files}"))
    page.write(folder / FILE)


def _summary(content: dict[str, Any], teacher: str, bits: str) -> list[str]:
    """Which images gave the best student, and how far behind the next are."""
    first = f"{teacher} was quantized to {bits} once for each kind of calibration images; all else is equal."
    rows = [row for row in content["rows"] if row["mean"].get("kl") is not None and not row["uses_data"]]
    if len(rows) < 2:
        return [first]
    best, second = rows[:2]
    near = f"Nearest to the teacher by KL is the student of {best['title']} images ({best['mean']['kl']:.4f} nats)"
    text = f"{near}, before that of {second['title']} images ({second['mean']['kl']:.4f})."
    spread = [row["sd"]["kl"] for row in (best, second)]
    if None in spread:
        return [first, f"{text} One seed each: their difference may be chance."]
    if sum(spread) >= second["mean"]["kl"] - best["mean"]["kl"]:
        return [first, f"{text} The difference is within the deviation over {best['n']} seeds."]
    return [first, text]


def _picture(path: Path) -> Figure:
    """A picture that a comparison drew."""
    with Image.open(path) as file:
        uri = jpeg_uri(file.convert("RGB"), (LARGEST_WIDTH, 4 * LARGEST_WIDTH))
    kind = (
        "Attention of the teacher" if path.parent.name == "attention" else "Images, with the teacher's class and its confidence"
    )
    return Figure(uri, f"{kind}.", min_width=560)
