"""Is the truth within the interval? Agreement and loss of top-1 as expected from synthetic images, beside those on real ones.

    python benchmarks/confidence.py --write vitdfq/evaluation/expectation.json       # how the constants were made
    python benchmarks/confidence.py --models local-dir:PATH --dataset FOLDER --split validation --bits w8a8 w6a6 w4a4 w3a3

The first command calibrates the estimate on the zoo and on small models that it trains (`small_models.py`), at several bits and
on images of three kinds, and prints how often the truth is within the interval for a model that was left out. The second checks
the constants on other models, which they were not made from. Measurements are kept in OUT/rows.json; an interrupted run goes on.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
from small_models import SMALL_MODELS, small_model
from torch import Tensor, nn

import vitdfq
from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.data import Classes, batches, load_labeled, transform_of
from vitdfq.evaluation import Predictions, score
from vitdfq.evaluation.expectation import LEAST_LOSS, LEAST_SHARE, Expectation, Line, log_odds, measures_of
from vitdfq.workflow.synthetic_scores import CALIBRATION, outputs_by_kind, unseen_images

ZOO = ("zoo:vit", "zoo:swin", "zoo:deit")
CELLS = {  # seed -> kind of the images of calibration, bits
    0: ("dead_leaves", ("w8a8", "w4a4", "w3a3", "w2a4", "w3a2", "w2a2")),
    1: ("noise", ("w6a6", "w4a4")),
    2: ("scenes", ("w6a6", "w3a3")),
}
NUM_IMAGES, BATCH_SIZE = 32, 32
LEVEL = 0.9
TAILS = (0.05, 0.04, 0.03, 0.02, 0.01, 0.0)  # outside on each side; a model that was left out needs more room than the others
Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path, metavar="FILE", help="calibrate, and write the constants here")
    parser.add_argument("--models", nargs="+", default=[*ZOO, *SMALL_MODELS])
    parser.add_argument("--bits", nargs="+", help="of the first seed; none for the others (without it: several at each seed)")
    parser.add_argument("--effort", default="quick", help="of the calibration: quick trains nothing")
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-test", type=int, default=1000, help="of small models 2,000")
    parser.add_argument("--out", type=Path, default=Path("runs/confidence"))
    args = parser.parse_args()
    rows = measured(args)
    if args.write:
        constants, lines = calibrate(rows)
        print("\n".join(lines))
        command = "python " + shlex.join(["benchmarks/confidence.py", *sys.argv[1:]])
        provenance = {"command": command, "date": f"{datetime.now(UTC):%Y-%m-%d}", "vitdfq": vitdfq.__version__}
        models = {"models": list(args.models), "students": len(rows)}
        args.write.write_text(json.dumps(provenance | models | asdict(constants), indent=2) + "\n")
    else:
        print("\n".join(table(rows, lambda row: Expectation.read())))


def measured(args: argparse.Namespace) -> list[Row]:
    """All rows, those of earlier runs among them."""
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "rows.json"
    known = json.loads(path.read_text()) if path.is_file() else {}
    cells = {0: (CELLS[0][0], args.bits)} if args.bits else CELLS
    rows = []
    for name in args.models:
        test_set = "small" if name in SMALL_MODELS else f"{args.dataset} {args.split} {args.num_test}"
        keys = {
            (seed, bits): " | ".join((name, test_set, args.effort, kind, str(seed), bits))
            for seed, (kind, all_bits) in cells.items()
            for bits in all_bits
        }
        if not all(key in known for key in keys.values()):
            for seed, bits, row in measure(name, args, [cell for cell, key in keys.items() if key not in known]):
                known[keys[seed, bits]] = row
                path.write_text(json.dumps(known, indent=1) + "\n")
                print(name, bits, row, flush=True)
        rows += [known[key] for key in keys.values()]
    return rows


def measure(name: str, args: argparse.Namespace, cells: list[tuple[int, str]]) -> Iterator[tuple[int, str, Row]]:
    """Calibrate a student for each (seed, bits); yield these and its row."""
    teacher, images, labels = small_model(name) if name in SMALL_MODELS else (vitdfq.load_teacher(name), None, None)
    if images is None:
        labeled = load_labeled(args.dataset, args.split, Classes.of(teacher))
        images, labels = next(batches(labeled, transform_of(teacher), batch_size=args.num_test, num_images=args.num_test))
    prepared, wanted = vitdfq.prepare(teacher), logits_of(teacher, images)
    for seed, bits in cells:
        shown = vitdfq.synthesize(teacher, method=CELLS[seed][0], num_images=NUM_IMAGES, seed=seed)
        student = vitdfq.quantize(prepared, bits=bits)
        vitdfq.calibrate(student, prepared, shown, effort=args.effort, seed=seed)
        logits = outputs_by_kind(student, prepared, shown, unseen_images(teacher, seed))
        pairs = [pair for kind, pair in logits.items() if kind != CALIBRATION]
        yield seed, bits, row_of(name, bits, seed, pairs, logits_of(student, images), wanted, labels)


def logits_of(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return forward_in_batches(model, images, device_of(model), BATCH_SIZE)


def row_of(name: str, bits: str, seed: int, pairs: list, logits: Tensor, wanted: Tensor, labels: Tensor) -> Row:
    """The measures on synthetic images of one student, and its truth on real ones, in percent."""
    scores = score(Predictions(logits, labels), wanted)
    loss = score(Predictions(wanted, labels))["top1"] - scores["top1"]
    measures = measures_of(*(torch.cat(outputs) for outputs in zip(*pairs, strict=True)))
    truth = {"agreement": scores["agreement"], "top1_loss": loss, "num_images": len(labels)}
    return {"model": name, "bits": bits, "seed": seed, "measures": list(measures)} | truth


def calibrate(rows: list[Row]) -> tuple[Expectation, list[str]]:
    """The narrowest intervals that hold the truth of `LEVEL` of the students whose model was left out, and the report on it."""
    names = list(dict.fromkeys(row["model"] for row in rows))
    for tail in TAILS:
        others = {name: fit([row for row in rows if row["model"] != name], tail) for name in names}
        lines = table(rows, lambda row, others=others: others[row["model"]])
        share = min(held(rows, lambda row, others=others: others[row["model"]]).values())
        if share >= LEVEL:
            break
    return fit(rows, tail), [*lines, f"outside on each side of the calibration: {tail}"]


def fit(rows: list[Row], tail: float) -> Expectation:
    """Two lines through the students of all models, which weigh the same, and intervals from models that were left out."""
    disagreement = [log_odds(share_of(row, 100 - row["agreement"]), LEAST_SHARE) for row in rows]
    loss = [log_odds(row["top1_loss"] / 100, LEAST_LOSS) for row in rows]
    return Expectation(LEVEL, *(line(rows, torch.tensor(truth, dtype=torch.float64), tail) for truth in (disagreement, loss)))


def share_of(row: Row, percent: float) -> float:
    """A share from a count of images, half an image more, so that none is not taken for never."""
    return (percent / 100 * row["num_images"] + 0.5) / (row["num_images"] + 1)


def line(rows: list[Row], truth: Tensor, tail: float) -> Line:
    """Least squares, and the quantiles of the residuals of each model under the line through the others."""
    names = [row["model"] for row in rows]
    inputs = torch.tensor([[*row["measures"], 1.0] for row in rows], dtype=torch.float64)
    weights = torch.tensor([1 / names.count(name) for name in names], dtype=torch.float64).sqrt()

    def solve(chosen: Tensor) -> Tensor:
        scaled = inputs[chosen] * weights[chosen, None]
        return torch.linalg.lstsq(scaled, (truth[chosen] * weights[chosen])[:, None]).solution[:, 0]

    residuals = torch.empty_like(truth)
    for name in set(names):
        left_out = torch.tensor([other == name for other in names])
        residuals[left_out] = truth[left_out] - inputs[left_out] @ solve(~left_out)
    low, high = residuals.quantile(tail).item(), residuals.quantile(1 - tail).item()
    coefficients = solve(torch.ones(len(rows), dtype=torch.bool)).tolist()
    return Line(*(round(number, 4) for number in (*coefficients, low, high)))


def held(rows: list[Row], model_of: Callable[[Row], Expectation]) -> dict[str, float]:
    """The share of the students whose truth is within the interval."""
    flags = [is_held(row, model_of(row)) for row in rows]
    return {key: sum(flag[key] for flag in flags) / len(flags) for key in ("agreement", "top1_loss")}


def is_held(row: Row, model: Expectation) -> dict[str, bool]:
    expected = model.of(tuple(row["measures"]))
    # A gain is not told apart from no loss, nor an agreement that a few images more would change.
    truth = {"agreement": row["agreement"], "top1_loss": max(row["top1_loss"], -100 * LEAST_LOSS)}
    return {key: expected[key]["low"] <= value <= expected[key]["high"] for key, value in truth.items()}


def table(rows: list[Row], model_of: Callable[[Row], Expectation]) -> list[str]:
    """A markdown table of all students, and how many truths the intervals hold."""
    lines = ["| model | seed | bits | agreement % | expected | | loss of top-1 | expected | |", "|-|-:|-|-:|-:|-|-:|-:|-|"]
    for row in rows:
        expected, inside = model_of(row).of(tuple(row["measures"])), is_held(row, model_of(row))
        cells = [
            f"{row[key]:.1f} | {expected[key]['value']:.1f} ({expected[key]['low']:.1f} to {expected[key]['high']:.1f}) | "
            f"{'inside' if inside[key] else 'outside'}"
            for key in ("agreement", "top1_loss")
        ]
        lines.append(f"| {Path(row['model']).name} | {row['seed']} | {row['bits']} | {' | '.join(cells)} |")
    shares, truth = held(rows, model_of), f"of {len(rows)} students is within the interval"
    return [*lines, *(f"{key}: the truth of {100 * share:.0f} % {truth}" for key, share in shares.items())]


if __name__ == "__main__":
    main()
