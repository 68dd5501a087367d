"""The speed of integer products: CPU time of a timm model in float32 and bfloat16, of students and of their integer copies.

    OMP_NUM_THREADS=1 python benchmarks/integer.py --batch 32

Weights are random, since time does not depend on them. All models of a row run in turn. A figure is the smallest of several
measurements of processor time, which other jobs disturb little. Prints a markdown table.
"""

import argparse
import time
from copy import deepcopy

import timm
import torch

import vitdfq


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w6a6", "w4a4"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    float32 = timm.create_model(args.model, pretrained=False).eval()
    bfloat16 = deepcopy(float32).bfloat16()
    prepared = vitdfq.prepare(vitdfq.load_teacher(deepcopy(float32)))
    size = float32.pretrained_cfg["input_size"]
    images = torch.randn(args.batch, *size)
    print(f"{args.model}, {args.batch} images of {size[1]} pixels, {torch.get_num_threads()} thread(s), ms an image")
    print("\n| bits | float32 | bfloat16 | student | integer | float32 / bfloat16 | float32 / integer |\n|-|-:|-:|-:|-:|-:|-:|")
    for bits in args.bits:
        student = vitdfq.quantize(prepared, bits=bits)
        vitdfq.calibrate(student, prepared, torch.randn(4, *size), steps=["observe"])
        seconds = [
            1e3 * s / args.batch
            for s in least_times([float32, bfloat16, student, vitdfq.to_integer(student)], images, args.turns)
        ]
        ratios = seconds[0] / seconds[1], seconds[0] / seconds[3]
        print(
            f"| {bits} | " + " | ".join(f"{value:.1f}" for value in seconds) + f" | {ratios[0]:.2f} | {ratios[1]:.2f} |",
            flush=True,
        )


@torch.inference_mode()
def least_times(models: list[torch.nn.Module], images: torch.Tensor, turns: int) -> list[float]:
    """Processor seconds of each model on the images, the smallest of several turns after one that warms up."""
    least = [float("inf")] * len(models)
    for turn in range(turns + 1):
        for index, model in enumerate(models):
            batch = images.to(next(model.parameters()).dtype)
            start = time.process_time()
            model(batch)
            if turn:
                least[index] = min(least[index], time.process_time() - start)
    return least


if __name__ == "__main__":
    main()
