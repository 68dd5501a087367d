"""The arithmetic and the words of a table of comparison: means over seeds, how they spread, and markdown."""

from collections.abc import Iterable
from statistics import mean, stdev
from typing import Any

from rich.table import Table
from rich.text import Text

from vitdfq.quantization.options import bits_name

COLUMNS = {  # key in compare.json -> (head of the column, digits)
    "num_images": ("images", 0),
    "top1": ("top-1 %", 2),
    "agreement": ("agreement %", 2),
    "kl": ("KL", 4),
    "logits_sqnr_db": ("logits SQNR dB", 2),
    "class_confidence": ("class confidence", 3),
    "diversity": ("diversity", 3),
    "layer_norm_distance": ("LayerNorm distance", 3),
    "synthesis_seconds": ("synthesis s", 1),
    "calibration_seconds": ("calibration s", 1),
}
TEACHER = "(teacher, float32)"


def summarize(cells: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Sum up the cells of one row, one a seed: {"n": cells without an error, "mean": {...}, "sd": {...}, "error": first or None}.

    `sd` is the sample's, with n - 1; None where there are not two values. A value that is None is left out of mean and sd.
    """
    cells = list(cells)
    good = [cell for cell in cells if "error" not in cell]
    values = {key: [cell[key] for cell in good if cell[key] is not None] for key in COLUMNS}
    return {
        "n": len(good),
        "mean": {key: mean(found) if found else None for key, found in values.items()},
        "sd": {key: stdev(found) if len(found) > 1 else None for key, found in values.items()},
        "error": next((cell["error"] for cell in cells if "error" in cell), None),
    }


def cells(content: dict[str, Any]) -> list[list[str]]:
    """The table as text: heads, the teacher's row, then a row for each entry of `content["rows"]`."""
    lines = [["calibrated on", "n", *(head for head, _ in COLUMNS.values())]]
    lines.append([TEACHER, "", "", f"{content['teacher']['top1']:.2f}", *[""] * (len(COLUMNS) - 2)])
    for row in content["rows"]:
        numbers = [number(row["mean"][key], row["sd"][key], digits) for key, (_, digits) in COLUMNS.items()]
        lines.append([row["title"], str(row["n"]), *numbers])
    return lines


def number(value: float | None, spread: float | None, digits: int) -> str:
    """ "90.57 ± 0.12"; without the spread where there is none, or none to speak of."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None and digits else "")


def title(content: dict[str, Any]) -> str:
    """What the table is about, in one line."""
    bits = content["bits"].upper()
    seeds = f"seed{'s' * (len(content['seeds']) > 1)} {', '.join(map(str, content['seeds']))}"
    return f"{content['teacher']['name']}: {bits} on {content['teacher']['num_images']:,} images, {seeds}"


def notes(content: dict[str, Any]) -> str:
    """What a reader of the table has to know."""
    lines = ["mean ± standard deviation over n seeds" if len(content["seeds"]) > 1 else "one seed: no spread is known"]
    if any(row["uses_data"] for row in content["rows"]):
        lines.append("the row of real images uses data (without labels, never evaluated): a reference, not a data-free result")
    lines += [f"{row['title']} failed: {row['error']}" for row in content["rows"] if row["error"]]
    return "\n".join(lines)


def markdown(content: dict[str, Any]) -> str:
    """The page compare.md: the table, its notes, and the pictures beside it."""
    heads, *lines = cells(content)
    marks = ["-", *["-:"] * (len(heads) - 1)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in (heads, marks, *lines))
    listed = "\n".join(f"- {line}" for line in notes(content).splitlines())
    pictures = "\n\n".join(
        f"### {row['title']}\n\n" + "\n".join(f"![{path}]({path})" for path in row["pictures"])
        for row in content["rows"]
        if row["pictures"]
    )
    return f"# {title(content)}\n\n{table}\n\n{listed}\n\n{pictures}".rstrip() + "\n"


def summary_table(metrics: dict[str, Any]) -> Table:
    """The table that ends a run: teacher, student, and a student of each baseline."""
    student, size = metrics["student"], metrics["size"]
    bits = bits_name(student["weight_bits"], student["activation_bits"]).upper()
    images = f"{metrics['teacher']['num_images']:,} images"
    table = Table(title=f"{metrics['teacher']['name']}: {bits} on {images}, seed {metrics['seed']}")
    table.add_column("calibrated on")
    for column in ("top-1 %", "top-5 %", "agreement %", "logits SQNR dB", "MB"):
        table.add_column(column, justify="right")

    def add(title: str, row: dict[str, Any], num_bytes: int) -> None:
        numbers = (row.get(key) for key in ("top1", "top5", "agreement", "logits_sqnr_db"))
        cells = ("" if number is None else f"{number:.2f}" for number in numbers)
        table.add_row(title, *cells, f"{num_bytes / 1e6:.2f}")

    add("(teacher, float32)", metrics["teacher"], size["float_bytes"])
    for name, row in [(metrics["synthesis"]["method"], student), *metrics["baselines"].items()]:
        add(f"{name} images", row, size["packed_bytes"])
    return table


def comparison_table(content: dict[str, Any]) -> Table:
    """The table of `vitdfq compare`, from what compare.json holds."""
    heads, *lines = cells(content)
    table = Table(title=title(content), caption=Text(notes(content)))  # an error's brackets are no markup
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left")
    for line in lines:
        table.add_row(*line)
    return table
