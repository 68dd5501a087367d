"""The effect and the cost of each calibration step: steps added one by one, on several kinds of images.

    python benchmarks/calibration.py --model zoo:deit --bits w4a4 w3a3 --images dead_leaves noise real
    python benchmarks/calibration.py --model local-dir:PATH --num-test 1000 --pipelines full --seeds 0 1 2
    python benchmarks/calibration.py --model NAME --dataset FOLDER --split validation --images real --real OTHER_FOLDER

Prints a markdown table (mean over seeds). Every result is stored in OUT/results.json, and an interrupted run continues. "real"
takes real images, without labels: a reference for synthetic images, which the library itself never uses. They are the first
--num-images of another data set, --real, or without it 32 of the one that is evaluated.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.data import NO_LABELS, batches, load_labeled, transform_of
from vitdfq.evaluation import predict, score
from vitdfq.quantization import POLICIES

ROTATED = None  # prepare's default
PIPELINES: dict[str, tuple[list[str] | None, list[str]]] = {  # name -> (prepare steps, calibration steps)
    "observe, not rotated": (["fold_layer_scale"], ["observe"]),
    "observe": (ROTATED, ["observe"]),
    "+ equalize_values": (ROTATED, ["equalize_values", "observe"]),
    "+ center": (ROTATED, ["equalize_values", "center", "observe"]),
    "+ gptq": (ROTATED, ["equalize_values", "center", "observe", "gptq"]),
    "full": (ROTATED, ["equalize_values", "center", "observe", "gptq", "distill"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo:deit")
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--split", default="test", help="of the data set, to evaluate on")
    parser.add_argument("--num-test", type=int, default=None, help="first so many test images (all)")
    parser.add_argument("--policy", default="vitdfq", choices=list(POLICIES))
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w6a6", "w4a4", "w3a3"])
    parser.add_argument("--images", nargs="+", default=["dead_leaves"], help="synthesis methods, a .safetensors file, or real")
    parser.add_argument("--num-images", type=int, default=256)
    parser.add_argument("--real", metavar="PATH_OR_NAME", help="data set that the images real come from")
    parser.add_argument("--real-split", metavar="SPLIT", default="train")
    parser.add_argument("--pipelines", nargs="+", default=list(PIPELINES), choices=list(PIPELINES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/calibration"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    teacher = vitdfq.load_teacher(args.model)
    reference = predict(teacher, dataset=args.dataset, split=args.split, num_images=args.num_test)
    cells = [
        (bits, images, pipeline, seed)
        for bits in args.bits
        for images in args.images
        for pipeline in args.pipelines
        for seed in args.seeds
    ]
    for bits, images, pipeline, seed in cells:
        key = key_of(args, bits, images, pipeline, seed)
        if key not in results:
            results[key] = measure(teacher, reference, args, bits, images, pipeline, seed)
            path.write_text(json.dumps(results, indent=2) + "\n")
            print(key, results[key], flush=True)
    print(f"\n{args.model}: float {score(reference)['top1']:.2f} % top-1 on {len(reference.labels)} images; seeds {args.seeds}\n")
    print(table(results, args))


def key_of(args, bits: str, images: str, pipeline: str, seed: int) -> str:
    """The name of a result: all that it depends on."""
    real = (args.real, args.real_split) if images == "real" and args.real else ()
    settings = (args.model, args.dataset, args.split, args.num_test, args.policy, args.num_images, *real)
    return " | ".join(map(str, (*settings, bits, images, pipeline, seed)))


def measure(teacher: nn.Module, reference, args, bits: str, images: str, pipeline: str, seed: int) -> dict:
    calibration_set = calibration_images(teacher, images, args, seed)
    preparation, steps = PIPELINES[pipeline]
    start = time.monotonic()
    prepared = vitdfq.prepare(teacher, steps=preparation)
    student = vitdfq.quantize(prepared, bits=bits, policy=args.policy)
    vitdfq.calibrate(student, prepared, calibration_set, steps=list(steps), seed=seed)
    seconds = time.monotonic() - start
    predictions = predict(student, dataset=args.dataset, split=args.split, num_images=args.num_test)
    scores = score(predictions, reference.logits)
    return {
        **{name: scores[name] for name in ("agreement", "kl", "top1")},
        "seconds": round(seconds, 1),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def calibration_images(teacher: nn.Module, name: str, args, seed: int) -> Tensor:
    if name == "real" and args.real:
        unlabeled = load_labeled(args.real, args.real_split, None, label_column=NO_LABELS)
        images, _ = next(batches(unlabeled, transform_of(teacher), batch_size=args.num_images, num_images=args.num_images))
        if len(images) < args.num_images:
            raise SystemExit(f"{args.real}, split {args.real_split}: {len(images)} images, fewer than --num-images")
        return images
    if name == "real":
        labeled = load_labeled(args.dataset, args.split, teacher.num_classes)
        parts = [images for images, _ in batches(labeled, transform_of(teacher), batch_size=32, num_images=5024, num_workers=0)]
        return torch.cat(parts[-1:])[:32]
    if name.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(name)["images"]
    return vitdfq.synthesize(teacher, method=name, num_images=args.num_images, seed=seed)


def table(results: dict, args) -> str:
    lines = ["| bits | images | steps | agreement % | KL | top-1 % | seconds | peak GiB |", "|-|-|-|-:|-:|-:|-:|-:|"]
    for bits in args.bits:
        for images in args.images:
            for pipeline in args.pipelines:
                rows = [results[key_of(args, bits, images, pipeline, seed)] for seed in args.seeds]
                means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
                lines.append(
                    f"| {bits} | {images} | {pipeline} | {means['agreement']:.2f} | {means['kl']:.5f} | {means['top1']:.2f} "
                    f"| {means['seconds']:.0f} | {means['peak_gib']:.1f} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
