"""Write README's table of results from finished runs: python tools/results.py runs/quickstart runs/..."""

import json
import sys
from pathlib import Path

from vitdfq.quantization.options import bits_name, bits_title

README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- results -->", "<!-- /results -->"
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
        f"| `{teacher['name']}` | {bits_title(bits, dynamic=students['student'].get('dynamic', False))} "
        f"| {metrics['synthesis']['num_images']} {method} | {row['agreement']:.2f} | {row['kl']:.4f} | {row['top1']:.2f} "
        f"| {teacher['top1']:.2f} | {row['num_images']:,} | {metrics['seed']} | {sizes if bits == saved else ''} |\n"
        for bits, students in by_bits.items()
        for method, row in ({metrics["synthesis"]["method"]: students["student"]} | students["baselines"]).items()
    )


table = HEAD + "".join(rows(metrics) for folder in sys.argv[1:] for metrics in runs(Path(folder)))
before, _, rest = README.read_text().partition(START)
README.write_text(before + START + "\n" + table + END + rest.partition(END)[2])
print(table)
