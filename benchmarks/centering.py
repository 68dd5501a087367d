"""Which images show whether centering helps? Its effect on a student's error on each kind of image, and on test images.

    python benchmarks/centering.py --model zoo:deit --bits w3a3 --methods maskaq sardfq noise --seeds 0 1 2

Each row is one kind of calibration images. A number is the error of the student that is centered on them, divided by the error
of the student that is not, mean over the seeds; above 1, centering increases the error. The step `center` decides by the first
three columns: these images, noise and procedural images. It has no test images. A column below 1 beside test images above 1
would be misleading if it were the only one:

| calibrated on | these | noise | procedural | test images |
|-|-|-|-|-|
| maskaq | 2.204 | 0.648 | 0.857 | 11.707 |
| sardfq | 2.544 | 1.590 | 1.315 | 20.370 |
| noise | 0.988 | 0.657 | 1.069 | 19.430 |

(zoo:deit, W3A3, 16 images of 40 steps, seed 0, 1,000 test images, one thread.)
"""

import argparse
import statistics

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.calibration import calibrate
from vitdfq.evaluation import predict
from vitdfq.quantization import quantize
from vitdfq.training.output_distance import output_distance, run_to_outputs
from vitdfq.training.trainable import divergence

KINDS = ("noise", "dead_leaves")
KIND_SEED = 1000  # no calibration images have this seed
CENTERED, LEFT = [{"center": {"guarded": False}}, "observe"], ["observe"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="zoo:deit")
    parser.add_argument("--bits", default="w3a3")
    parser.add_argument("--methods", nargs="+", default=["maskaq", "sardfq", "noise"])
    parser.add_argument("--num-images", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--num-test", type=int, default=1000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    test_set = {"dataset": args.dataset, "split": "test", "num_images": args.num_test}
    teacher = vitdfq.load_teacher(args.model)
    prepared = vitdfq.prepare(teacher)
    wanted = predict(prepared, **test_set).logits
    kinds = [vitdfq.synthesize(teacher, method=kind, num_images=32, seed=KIND_SEED) for kind in KINDS]
    print("| calibrated on | these | noise | procedural | test images |\n|-|-|-|-|-|")
    for method in args.methods:
        steps = {} if method in KINDS else {"steps": args.steps}
        ratios = []
        for seed in args.seeds:
            images = vitdfq.synthesize(teacher, method=method, num_images=args.num_images, seed=seed, **steps)

            def errors(calibration: list, images: Tensor = images) -> list[float]:
                student = calibrate(quantize(prepared, bits=args.bits), prepared, images, steps=calibration)
                logits = predict(student, **test_set).logits
                return [*(distance(student, prepared, kind) for kind in (images, *kinds)), divergence(logits, wanted).item()]

            ratios.append([centered / left for centered, left in zip(errors(CENTERED), errors(LEFT), strict=True)])
        print(
            f"| {method} |", " | ".join(f"{statistics.mean(column):.3f}" for column in zip(*ratios, strict=True)), "|", flush=True
        )


@torch.no_grad()
def distance(student: nn.Module, teacher: nn.Module, images: Tensor) -> float:
    return output_distance(run_to_outputs(student, images), run_to_outputs(teacher, images)).item()


if __name__ == "__main__":
    main()
