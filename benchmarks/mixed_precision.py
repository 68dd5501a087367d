"""Bits by layer against the same bits everywhere, at equal size: KL, agreement and top-1 on test images.

    python benchmarks/mixed_precision.py --models zoo:deit zoo:vit zoo:swin --average 4 3 --activations 8 --seeds 0 1 2

"uniform" is the recipe's student: wN with embedding and classifier at 8 bits, whose weights have a little more than N bits on
average. "mixed" has at most as many on average, embedding and classifier among them: what `vitdfq analyze --budget
average-bits=...` writes, whether or not the held-out images prefer it. Both are calibrated on the same images with the same
steps, and measured on the same test images, which decide nothing.
"""

import argparse

import torch

import vitdfq
from vitdfq.analysis.allocation import Table, allocate
from vitdfq.analysis.analyze import CHOICES
from vitdfq.analysis.budget import average_bits
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.sensitivity import weight_errors
from vitdfq.analysis.untrained import calibrated_switches, weights_at, with_weight_overrides
from vitdfq.evaluation import predict, summarize
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import mean_weight_bits
from vitdfq.runtime.run import Run
from vitdfq.workflow.analyze import HELD_OUT_SEED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["zoo:deit", "zoo:vit", "zoo:swin"])
    parser.add_argument("--average", nargs="+", type=int, default=[4, 3])
    parser.add_argument("--activations", type=int, default=8)
    parser.add_argument("--method", default="dead_leaves", help="of the images of calibration")
    parser.add_argument(
        "--held-out", nargs="+", default=["dead_leaves"], help="methods of the images that errors are measured on"
    )
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--effort", default="quick", help="of both calibrations: quick trains nothing")
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-test", type=int, default=2000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    print("| model | seed | student | average bits | KL | agreement % | top-1 % |\n|-|-|-|-:|-:|-:|-:|", flush=True)
    for name in args.models:
        teacher = vitdfq.load_teacher(name)
        for seed in args.seeds:
            compare(name, teacher, seed, args)


def compare(name: str, teacher: torch.nn.Module, seed: int, args: argparse.Namespace) -> None:
    """Print the rows of one model at one seed."""
    test_set = {"dataset": args.dataset, "split": args.split, "num_images": args.num_test}
    wanted = predict(teacher, **test_set)
    prepared = vitdfq.prepare(teacher)
    images = vitdfq.synthesize(teacher, method=args.method, num_images=args.num_images, seed=seed)
    held_out = torch.cat(
        [
            vitdfq.synthesize(teacher, method=method, num_images=args.num_images, seed=seed + HELD_OUT_SEED)
            for method in args.held_out
        ]
    )
    errors, costs = errors_and_costs(prepared, images, held_out, seed, args)
    for average in args.average:
        bits = f"w{average}a{args.activations}"
        bits_by_layer = allocate(errors, costs, mean_weight_bits(quantize(prepared, bits=bits)))
        for title, overrides in (("uniform", {}), ("mixed", with_weight_overrides({}, bits_by_layer))):
            student = quantize(prepared, bits=bits, overrides=overrides)
            vitdfq.calibrate(student, prepared, images, effort=args.effort, seed=seed)
            scores = summarize(predict(student, **test_set), wanted)
            numbers = f"{mean_weight_bits(student):.3f} | {scores['kl']:.5f} | {scores['agreement']:.2f} | {scores['top1']:.2f}"
            print(f"| {name} | {seed} | {title} {bits} | {numbers} |", flush=True)


@torch.no_grad()
def errors_and_costs(prepared, images, held_out, seed: int, args: argparse.Namespace) -> tuple[Table, Table]:
    """What each layer's weights add to the error, and to the average of bits, at each number of bits."""
    student = quantize(prepared, bits=f"w4a{args.activations}")
    switches = calibrated_switches(student, prepared, images, None, seed, Run())
    weights = {bits: weights_at(switches, prepared, images, bits, None, Run()) for bits in CHOICES}
    errors = weight_errors(HeldOutPasses(switches, prepared, held_out), weights, Run())
    return errors, average_bits(switches, prepared, CHOICES).by_layer


if __name__ == "__main__":
    main()
