"""The tables of `vitdfq run` and `vitdfq compare`: means and standard deviations over seeds, as rich tables and as markdown."""

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from vitdfq.quantization.options import bits_name, bits_title
from vitdfq.reports.expected import expected_notes

COLUMNS = {  # key in compare.json -> (heading of the column, digits); how well a student follows its teacher comes first
    "kl": ("KL", 5),
    "agreement": ("agreement %", 2),
    "top1": ("top-1 %", 2),
    "logits_sqnr_db": ("logits SQNR dB", 2),
    "num_images": ("images", 0),
    "class_confidence": ("class confidence", 3),
    "diversity": ("diversity", 3),
    "layer_norm_distance": ("LayerNorm distance", 3),
    "synthesis_seconds": ("synthesis s", 1),
    "calibration_seconds": ("calibration s", 1),
}
FEATURES = {  # the same for a model that gives features
    "cosine": ("cosine", 4),
    "relative_error": ("relative error", 4),
    "features_sqnr_db": ("features SQNR dB", 2),
}
TOP1_OF = {"knn": "k-NN top-1 %", "linear_head": "linear top-1 %", "text_embeddings": "zero-shot top-1 %"}  # what read it
OF_CLASSES = ("kl", "agreement", "top1", "logits_sqnr_db", "class_confidence")  # columns that features alone do not have
WITH_LABELS = ("agreement", "kl", "top1", "top5", "logits_sqnr_db")  # of the table of a run
WITHOUT_LABELS = ("agreement", "kl", "logits_sqnr_db")
RUN_COLUMNS = COLUMNS | {"top5": ("top-5 %", 2)}
SHORT_HEADING = 11  # characters
TEACHER = "(teacher, float32)"
ALIKE = "cosine, relative error and SQNR compare features with the teacher's, which needs no labels"
BY_KL = "sorted by KL, the divergence from the teacher's to the student's class probabilities in nats, least first"
NO_LABELS = "the images have no labels: agreement, KL and SQNR need none, top-1 does"


def columns_of(gives: str, read_by: str | None) -> dict[str, tuple[str, int]]:
    """Return the columns of a comparison of models that give "classes" or "features", whose classes `read_by` read."""
    if gives == "classes":
        return COLUMNS
    if read_by is None:
        read = {}
    else:
        read = {"top1": (TOP1_OF[read_by], 2), "agreement": COLUMNS["agreement"]}
    rest = {key: column for key, column in COLUMNS.items() if key not in (*OF_CLASSES, "num_images")}
    return {"num_images": COLUMNS["num_images"]} | FEATURES | read | rest


def columns_in(content: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the columns of the comparison in compare.json."""
    gives = "features" if any("cosine" in row["mean"] for row in content["rows"]) else "classes"
    return columns_of(gives, content["teacher"].get("read_by"))


def summarize(cells: Iterable[dict[str, Any]], columns: Iterable[str] = tuple(COLUMNS)) -> dict[str, Any]:
    """Summarize the cells of one row, one for each seed.

    Returns:
        "n": the number of cells without an error. "mean" and "sd": by column, over the values that are not None; "sd" is the
        sample standard deviation (n - 1), None for fewer than two values. "error": the first error, or None.
    """
    cells = list(cells)
    complete = [cell for cell in cells if "error" not in cell]
    values = {key: [cell[key] for cell in complete if cell[key] is not None] for key in columns}
    return {
        "n": len(complete),
        "mean": {key: mean(numbers) if numbers else None for key, numbers in values.items()},
        "sd": {key: stdev(numbers) if len(numbers) > 1 else None for key, numbers in values.items()},
        "error": next((cell["error"] for cell in cells if "error" in cell), None),
    }


def ranked(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows of `summarize` by their mean KL, least first; rows without one keep their order and follow, real images are last.

    The row of real images is a reference for the others, so it takes no rank among them.
    """

    def rank(row: dict[str, Any]) -> tuple[bool, bool, float]:
        kl = row["mean"].get("kl")
        return row["uses_data"], kl is None, kl or 0.0

    return sorted(rows, key=rank)


def text_rows(content: dict[str, Any]) -> list[list[str]]:
    """The cells as text: headings, the teacher's row, then a row for each entry of `content["rows"]`."""
    columns = columns_in(content)
    rows = [["calibrated on", "n", *(heading for heading, _ in columns.values())]]
    top1 = format_number(content["teacher"]["top1"], None, 2)
    rows.append([TEACHER, "", *(top1 if key == "top1" else "" for key in columns)])
    for row in content["rows"]:
        numbers = [format_number(row["mean"][key], row["sd"][key], digits) for key, (_, digits) in columns.items()]
        rows.append([row["title"], str(row["n"]), *numbers])
    return rows


def named_by(row: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `bits_title`, as `quantization.modules.named_by` wrote them; earlier versions did not."""
    return {"dynamic": row.get("dynamic", False), "mixed": row.get("mixed")}


def format_number(value: float | None, sd: float | None, digits: int) -> str:
    """Return "90.57 ± 0.12"; without a standard deviation, or for a whole number, "90.57"."""
    if value is None:
        return ""
    return f"{value:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None and digits else "")


def title(content: dict[str, Any]) -> str:
    """The table's title, in one line: model, bits, number of test images, seeds."""
    bits = bits_title(content["bits"], **named_by(content))
    seeds = f"seed{'s' * (len(content['seeds']) > 1)} {', '.join(map(str, content['seeds']))}"
    return f"{content['teacher']['name']}: {bits} on {content['teacher']['num_images']:,} images, {seeds}"


def notes(content: dict[str, Any]) -> str:
    """Notes below the table: the meaning of ±, the row of real images, and the rows that failed."""
    lines = ["mean ± standard deviation over n seeds" if len(content["seeds"]) > 1 else "one seed: no spread is known"]
    if any(row["uses_data"] for row in content["rows"]):
        lines.append("the row of real images uses data (without labels, never evaluated): a reference, not a data-free result")
    columns = columns_in(content)
    lines.append(ALIKE if "cosine" in columns else BY_KL)
    if content["teacher"]["top1"] is None and "top1" in columns:
        lines.append(NO_LABELS)
    lines += [f"{row['title']} failed: {row['error']}" for row in content["rows"] if row["error"]]
    return "\n".join(lines)


def markdown_table(headings: list[str], rows: list[list[str]], num_names: int = 1) -> str:
    """The lines of a table; columns of numbers, after the first `num_names`, are aligned on the right."""
    alignment = ["-"] * num_names + ["-:"] * (len(headings) - num_names)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, alignment, *rows))


def markdown(content: dict[str, Any]) -> str:
    """The page compare.md: the table, its notes and links to the pictures."""
    headings, *rows = text_rows(content)
    table = markdown_table(headings, rows)
    bullets = "\n".join(f"- {line}" for line in notes(content).splitlines())
    pictures = "\n\n".join(
        f"### {row['title']}\n\n" + "\n".join(f"![{path}]({path})" for path in row["pictures"])
        for row in content["rows"]
        if row["pictures"]
    )
    return f"# {title(content)}\n\n{table}\n\n{bullets}\n\n{pictures}".rstrip() + "\n"


@dataclass(frozen=True)
class FittingTable:
    """A table that never cuts a number: columns that do not fit into the terminal follow in a table below, rows named again.

    Attributes:
        headings: of the columns. The first `num_names` columns name a row, in words that may be wrapped; the others hold numbers.
    """

    title: str
    headings: list[str]
    rows: list[list[str]]
    num_names: int = 1
    notes: str = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = list(zip(self.headings, *self.rows, strict=True))  # by column
        names, numbers = range(self.num_names), range(self.num_names, len(self.headings))
        widths = {index: max(_heading_width(cells[index][0]), *map(len, cells[index][1:])) for index in numbers}
        for index in names:
            longest_word = max(len(word) for cell in cells[index] for word in cell.split() or [""])
            widths[index] = max(longest_word, min(max(map(len, cells[index])), options.max_width // 4))
        blocks: list[list[int]] = [[]]
        for index in numbers:
            if blocks[-1] and _table_width([widths[column] for column in (*names, *blocks[-1], index)]) > options.max_width:
                blocks.append([])
            blocks[-1].append(index)
        for block in blocks:
            table = Table(title=self.title if block is blocks[0] else None)
            for column in (*names, *block):
                justify = "right" if column in numbers else "left"
                table.add_column(Text(self.headings[column]), justify=justify, width=widths[column])
            for row in self.rows:
                table.add_row(*(Text(row[column]) for column in (*names, *block)))
            yield table
        if self.notes:  # below, not as the caption, which is as narrow as the table
            yield Text(self.notes)  # brackets in an error are no markup


def _heading_width(heading: str) -> int:
    """A long heading is wrapped at its spaces."""
    return len(heading) if len(heading) <= SHORT_HEADING else max(map(len, heading.split()))


def _table_width(widths: list[int]) -> int:
    """The width of a rich table: a space on both sides of each cell, and lines between them."""
    return sum(width + 3 for width in widths) + 1


def summary_table(metrics: dict[str, Any]) -> FittingTable:
    """The table at the end of a run: the teacher, the student, and a student of each baseline, at each number of bits."""
    student, size = metrics["student"], metrics["size"]
    bits = bits_name(student["weight_bits"], student["activation_bits"])
    method, also = metrics["synthesis"]["method"], metrics.get("also_bits", {})
    teacher, num_images = metrics["teacher"], metrics["teacher"]["num_images"]
    columns = run_columns(metrics)
    unlabeled = teacher["top1"] is None and "agreement" in columns  # what reads no classes does not miss labels
    on = "not evaluated" if num_images is None else f"on {num_images:,} images{' without labels' * unlabeled}"
    rows: list[list[str]] = []

    def add(bits: str, title: str, row: dict[str, Any], num_bytes: int | None) -> None:
        numbers = [format_number(row.get(key), None, digits) for key, (_, digits) in columns.items()]
        rows.append([bits, title, *numbers, format_number(None if num_bytes is None else num_bytes / 1e6, None, 2)])

    add("float32", "(teacher)", teacher, size["float_bytes"])
    by_bits = {bits: {"student": student, "baselines": metrics["baselines"]}} | also
    if num_images is None:  # baselines and other bits are made for their scores
        by_bits = {bits: {"student": student, "baselines": {}}}
    for name, measured in by_bits.items():
        packed = size["packed_bytes"] if name == bits else None  # students at other bits are not saved
        for title, row in [(method, measured["student"]), *measured["baselines"].items()]:
            add(bits_title(name, **named_by(measured["student"])), f"{title} images", row, packed)
    headings = ["bits", "calibrated on", *(heading for heading, _ in columns.values()), "MB"]
    notes = "\n".join(filter(None, [expected_notes(metrics), synthetic_notes(metrics.get("synthetic", {}))]))
    return FittingTable(f"{teacher['name']} {on}, seed {metrics['seed']}", headings, rows, num_names=2, notes=notes)


def run_columns(metrics: dict[str, Any]) -> dict[str, tuple[str, int]]:
    """Return the columns of a run's table, from its metrics: none without an evaluation."""
    teacher = metrics["teacher"]
    if teacher["num_images"] is None:
        return {}
    labeled = teacher["top1"] is not None
    if "cosine" not in metrics["student"]:
        return {key: RUN_COLUMNS[key] for key in (WITH_LABELS if labeled else WITHOUT_LABELS)}
    read_by = metrics["read_by"]
    top = {"top1": (TOP1_OF[read_by], 2), "top5": RUN_COLUMNS["top5"]} if read_by and labeled else {}
    return FEATURES | top | ({"agreement": COLUMNS["agreement"]} if read_by else {})


def synthetic_notes(scores: dict[str, dict[str, Any]]) -> str:
    """Lines on the saved student's error on synthetic images, by kind; "calibration" are those it was calibrated on."""
    lines = []
    for kind, row in scores.items():
        images = "calibration images" if kind == "calibration" else f"{kind} images that it never saw"
        outputs, alike = "logits", f"same class on {row['agreement']:.1f} %" if "agreement" in row else ""
        if "cosine" in row:
            outputs, alike = "features", f"cosine {row['cosine']:.4f}"
        sqnr = format_number(row[f"{outputs}_sqnr_db"], None, 1) or "infinite"
        lines.append(f"  {row['num_images']} {images}: {alike}, {outputs} SQNR {sqnr} dB")
    return "\n".join(["the student against its teacher on synthetic images, which needs no data:", *lines]) if lines else ""


def comparison_table(content: dict[str, Any]) -> FittingTable:
    """The table of `vitdfq compare`, from the content of compare.json."""
    headings, *rows = text_rows(content)
    return FittingTable(title(content), headings, rows, notes=notes(content))
