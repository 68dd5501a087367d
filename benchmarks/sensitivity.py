"""Does the ranking of sites without labels agree with the ranking by accuracy on real images?

    python benchmarks/sensitivity.py --models zoo:deit zoo:vit zoo:swin --bits w2a2 --num-test 1000

For every site the student with this site alone quantized is scored on synthetic images (KL, SQNR: what `vitdfq analyze` ranks by)
and on test images (top-1). Prints Spearman's rank correlation of the error without labels with the loss of top-1, and with the KL
on the test images, over the n sites of a model. The last column correlates the loss of top-1 on one half of the test
images with that on the other half: a ranking by accuracy that does not agree with itself cannot be agreed with.
"""

import argparse

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.analysis.errors import error_of
from vitdfq.analysis.passes import HeldOutPasses
from vitdfq.analysis.untrained import calibrated_switches
from vitdfq.data import Classes, batches, load_labeled, transform_of
from vitdfq.quantization import quantize
from vitdfq.runtime.run import Run
from vitdfq.workflow.analyze import HELD_OUT_SEED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["zoo:deit", "zoo:vit", "zoo:swin"])
    parser.add_argument("--bits", default="w2a2")
    parser.add_argument("--methods", nargs="+", default=["dead_leaves", "noise"], help="of the held-out images; a row each")
    parser.add_argument("--calibrated-on", default="dead_leaves")
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--steps", nargs="+", default=["observe"], help="of the calibration")
    parser.add_argument("--dataset", default="zoo:fashion-mnist")
    parser.add_argument("--split", default="test")
    parser.add_argument("--num-test", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    columns = ("KL with top-1", "SQNR with top-1", "KL with test KL", "SQNR with test KL", "top-1, half with half")
    print("| model | bits | held-out images | n |", " | ".join(columns), "|")
    print("|-|-|-|-:|-:|-:|-:|-:|-:|", flush=True)
    for name in args.models:
        errors, test, accuracy = measure(name, args)
        kl_by_method = {method: [error_of(row) for row in rows] for method, rows in errors.items()}
        noise_by_method = {method: [-(row["sqnr_db"] or 300.0) for row in rows] for method, rows in errors.items()}
        for by_method in (kl_by_method, noise_by_method):
            by_method["mean of ranks"] = (
                torch.stack([mean_ranks(torch.tensor(one)) for one in by_method.values()]).mean(0).tolist()
            )
        lost, test_kl = [-sum(halves) for halves in accuracy], [error_of(row) for row in test]
        itself = spearman(*(list(half) for half in zip(*accuracy, strict=True)))
        for method in kl_by_method:
            ours = (kl_by_method[method], noise_by_method[method])
            numbers = [*(spearman(one, other) for other in (lost, test_kl) for one in ours), itself]
            print(f"| {name} | {args.bits} | {method} | {len(lost)} |", " | ".join(f"{x:.3f}" for x in numbers), "|", flush=True)


@torch.no_grad()
def measure(name: str, args: argparse.Namespace) -> tuple[dict[str, list[dict]], list[dict], list[tuple[float, float]]]:
    """Scores by kind of held-out images, scores on the test images, and top-1 on each half of these, for every site."""
    teacher = vitdfq.load_teacher(name)
    prepared = vitdfq.prepare(teacher)
    images = vitdfq.synthesize(teacher, method=args.calibrated_on, num_images=args.num_images, seed=args.seed)
    student = quantize(prepared, bits=args.bits)
    switches = calibrated_switches(student, prepared, images, args.steps, args.seed, Run())
    held_out = {
        method: vitdfq.synthesize(teacher, method=method, num_images=args.num_images, seed=args.seed + HELD_OUT_SEED)
        for method in args.methods
    }
    passes = {method: HeldOutPasses(switches, prepared, batch) for method, batch in held_out.items()}
    test_images, labels = real_images(teacher, args)
    test = HeldOutPasses(switches, prepared, test_images)
    errors: dict[str, list[dict]] = {method: [] for method in passes}
    test_scores, accuracy = [], []
    for site in switches.sites:
        switches.only(switches.parts_of([site]))
        first = test.unit_of[site]
        for method, one in passes.items():
            errors[method].append(one.scores(one.outputs_alone(first)))
        outputs = test.outputs_alone(first)
        test_scores.append(test.scores(outputs))
        hits = (outputs.argmax(1) == labels).double()
        accuracy.append((hits[::2].mean().item(), hits[1::2].mean().item()))
    return errors, test_scores, accuracy


def real_images(teacher: nn.Module, args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """Test images (N, 3, H, W) and their labels."""
    labeled = load_labeled(args.dataset, args.split, Classes.of(teacher))
    return next(batches(labeled, transform_of(teacher), batch_size=args.num_test, num_images=args.num_test))


def spearman(one: list[float], other: list[float]) -> float:
    """Spearman's rank correlation; equal values share their mean rank."""
    ranks = torch.stack([mean_ranks(torch.tensor(values, dtype=torch.float64)) for values in (one, other)])
    return torch.corrcoef(ranks)[0, 1].item()


def mean_ranks(values: Tensor) -> Tensor:
    below, equal = (values[None] < values[:, None]).sum(1), (values[None] == values[:, None]).sum(1)
    return below + (equal + 1) / 2


if __name__ == "__main__":
    main()
