"""Write the tables of measured numbers into the documentation: python tools/results.py [runs/quickstart runs/...]

README's table of results is made of the finished runs that are named; without any it stays. Two tables of docs/results/ are made
of `vitdfq/recipe/measured.json`, which `vitdfq list` and the pages of methods read too.
"""

import json
import sys
from pathlib import Path
from typing import Any

from vitdfq.quantization.options import bits_name, bits_title
from vitdfq.recipe.measured import measured_tables
from vitdfq.reports.tables import named_by

ROOT = Path(__file__).parents[1]
COLUMNS = (
    "model",
    "bits",
    "images for calibration",
    "agreement %",
    "KL",
    "top-1 %",
    "teacher %",
    "test images",
    "seed",
    "MB (float32)",
)
HEAD = f"| {' | '.join(COLUMNS)} |\n|-|-|-|{'-:|' * 7}\n"
PAGES = {"methods": ("docs/results/images.md", "32 images of"), "bits": ("docs/results/accuracy.md", "model")}  # by table


def runs(folder: Path) -> list[dict]:
    """The metrics of a run, or of every bit-width that `benchmarks/bits.py` ran in the folder."""
    if (folder / "bits.json").is_file():
        return list(json.loads((folder / "bits.json").read_text()).values())
    return [json.loads((folder / "metrics.json").read_text())]


def rows(metrics: dict) -> str:
    """One line for the student and one for each baseline of a run, at each number of bits."""
    teacher, student, size = metrics["teacher"], metrics["student"], metrics["size"]
    saved = bits_name(student["weight_bits"], student["activation_bits"])
    by_bits = {saved: {"student": student, "baselines": metrics["baselines"]}} | metrics.get("also_bits", {})
    sizes = f"{size['packed_bytes'] / 1e6:.2f} ({size['float_bytes'] / 1e6:.2f})"
    return "".join(
        f"| `{teacher['name']}` | {bits_title(bits, **named_by(students['student']))} "
        f"| {metrics['synthesis']['num_images']} {method} | {row['agreement']:.2f} | {row['kl']:.4f} | {row['top1']:.2f} "
        f"| {teacher['top1']:.2f} | {row['num_images']:,} | {metrics['seed']} | {sizes if bits == saved else ''} |\n"
        for bits, students in by_bits.items()
        for method, row in ({metrics["synthesis"]["method"]: students["student"]} | students["baselines"]).items()
    )


def measured_block(table: dict[str, Any], first: str) -> str:
    """A table of measured.json with its date, commit, machine and command."""
    command = f"`{table['command']}`" if table["command"].startswith(("vitdfq", "python")) else f"Command {table['command']}"
    lines = [f"*{table['date']}, commit {table['commit']}; {table['machine']}. {command}*", ""]
    lines += [f"| {' | '.join((first, *table['columns']))} |", f"|-|{'-:|' * len(table['columns'])}"]
    lines += [f"| {' | '.join((_name(name), *cells))} |" for name, cells in table["rows"].items()]
    return "\n".join(lines) + "\n"


def _name(name: str) -> str:
    return name if " " in name or name.startswith("(") else f"`{name}`"


def replace_block(file: Path, name: str, content: str) -> None:
    """Put text between the comments `name` and `/name` of a page."""
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, _, rest = file.read_text().partition(start)
    file.write_text(f"{before}{start}\n{content}{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    for name, (page, first) in PAGES.items():
        replace_block(ROOT / page, name, measured_block(measured_tables()[name], first))
    if sys.argv[1:]:
        table = HEAD + "".join(rows(metrics) for folder in sys.argv[1:] for metrics in runs(Path(folder)))
        replace_block(ROOT / "README.md", "results", table)
        print(table)
