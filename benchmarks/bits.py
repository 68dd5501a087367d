"""The effect of calibration images: one model at several bit-widths, calibrated on synthetic images and on the baselines.

    python benchmarks/bits.py recipes/quickstart.yaml --bits w8a8 w6a6 w4a4 --out runs/bits
    python benchmarks/bits.py recipes/quickstart.yaml --set model.name=local-dir:PATH --set evaluate.num_images=1000

Images are synthesized once for all bit-widths; an interrupted run continues. Prints a markdown table and writes bits.json.
"""

import argparse
import json
from pathlib import Path

import vitdfq

COLUMNS = ("top1", "agreement", "logits_sqnr_db")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w6a6", "w4a4"])
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value", dest="overrides")
    parser.add_argument("--out", type=Path, default=Path("runs/bits"))
    args = parser.parse_args()
    results = {}
    for bits in args.bits:
        results[bits] = vitdfq.run(args.recipe, out=args.out, overrides=[*args.overrides, f"quantize.bits={bits}"])
        (args.out / "bits.json").write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


def table(results: dict) -> str:
    first = next(iter(results.values()))
    teacher = first["teacher"]
    lines = [
        f"{teacher['name']}: float {teacher['top1']:.2f} % top-1 on {teacher['num_images']} images, seed {first['seed']}",
        "",
        "| bits | images | top-1 % | agreement % | logits SQNR dB |",
        "|-|-|-:|-:|-:|",
    ]
    for bits, metrics in results.items():
        for images, row in {metrics["synthesis"]["method"]: metrics["student"], **metrics["baselines"]}.items():
            lines.append(f"| {bits} | {images} | " + " | ".join(f"{row[column]:.2f}" for column in COLUMNS) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
