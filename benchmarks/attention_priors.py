"""Options of SARDFQ's attention prior, one by one: scores without data and with data.

    python benchmarks/attention_priors.py --model zoo:deit --num-test 5000 --seeds 0 1 2
    python benchmarks/attention_priors.py --model local-dir:PATH --num-test 1000 --bits w4a4 --steps 60

Columns without data: class confidence and diversity of the images; the error of the student calibrated on them, as the mean and
the maximum over three other sets of images (dead leaves, noise, PSAQ-ViT). The error is the KL divergence from the teacher's
class probabilities. Columns with data: agreement and top-1. Prints a markdown table. Every result is stored in
OUT/results.json, and an interrupted run continues.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.evaluation import predict, score
from vitdfq.synthesis import quality
from vitdfq.training.trainable import divergence

SETTINGS: dict[str, dict] = {  # options of the loss attention_prior
    "no prior": {"weight": 0},
    "default": {},
    "without the class entry": {"include_cls": False},
    "sum mixture": {"mixture": "sum"},
    "raw prior": {"flatten": "raw"},
    "raw, without the class entry": {"flatten": "raw", "include_cls": False},
    "every query": {"every_query": True},  # the default for models without a class token
    "weight 1": {"weight": 1.0},
    "weight 10": {"weight": 10.0},
    "weight 1e3": {"weight": 1e3},
    "weight 1e4": {"weight": 1e4},
    "weight 1e5": {"weight": 1e5},
}
OTHER_IMAGES = ("dead_leaves", "noise", "psaq")
OTHER_SEED = 1000  # no calibration images have this seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo:deit")
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--num-test", type=int, default=None, help="first so many test images (all)")
    parser.add_argument("--bits", default="w3a3")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--calibrate", nargs="+", default=["center", "observe", "gptq"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/attention_priors"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    teacher = vitdfq.load_teacher(args.model)
    prepared = vitdfq.prepare(teacher)
    reference = predict(teacher, dataset=args.dataset, split="test", num_images=args.num_test)
    others = {
        name: vitdfq.synthesize(
            teacher, method=name, num_images=64, seed=OTHER_SEED, steps=args.steps if name == "psaq" else None
        )
        for name in OTHER_IMAGES
    }

    def key(setting: str, seed: int) -> str:
        run = (args.model, args.num_test, args.bits, args.num_images, args.steps, "+".join(args.calibrate))
        return " | ".join((*map(str, run), setting, str(seed)))

    for seed in args.seeds:
        for setting in args.settings:
            if key(setting, seed) in results:
                continue
            losses = {"attention_prior": SETTINGS[setting]}
            images = vitdfq.synthesize(
                teacher, method="sardfq", num_images=args.num_images, steps=args.steps, losses=losses, seed=seed
            )
            student = vitdfq.quantize(prepared, bits=args.bits)
            vitdfq.calibrate(student, prepared, images, steps=list(args.calibrate), seed=seed)
            predictions = predict(student, dataset=args.dataset, split="test", num_images=args.num_test)
            scores, measures = score(predictions, reference.logits), quality(teacher, images)
            errors = [error(student, teacher, other) for other in others.values()]
            results[key(setting, seed)] = {
                "confidence": measures["class_confidence"],
                "diversity": measures["diversity"],
                "error": sum(errors) / len(errors),
                "worst error": max(errors),
                "agreement %": scores["agreement"],
                "top-1 %": scores["top1"],
            }
            path.write_text(json.dumps(results, indent=2) + "\n")
            print(setting, seed, results[key(setting, seed)], flush=True)
    print(f"\n{args.model}, {args.bits}: float {score(reference)['top1']:.2f} % top-1 on {len(reference.labels)} images\n")
    print(table({setting: [results[key(setting, seed)] for seed in args.seeds] for setting in args.settings}))


@torch.inference_mode()
def error(student: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    return divergence(student(images), teacher(images)).item()


def table(rows: dict[str, list[dict]]) -> str:
    names = list(next(iter(rows.values()))[0])
    lines = [f"| attention prior | {' | '.join(names)} |", "|-|" + "-:|" * len(names)]
    for setting, cells in rows.items():
        means = [sum(cell[name] for cell in cells) / len(cells) for name in names]
        lines.append(f"| {setting} | {' | '.join(f'{mean:.3f}' if mean < 1 else f'{mean:.2f}' for mean in means)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
