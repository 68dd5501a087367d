"""The cost of a synthesis step, as a share of a bare timm forward and backward pass to the pixels on the same batch.

    python benchmarks/inversion.py                                   # ViT-S/16 at 224, random weights: fine for speed
    python benchmarks/inversion.py --model deit_base_patch16_224 --batch-size 8 --precision bfloat16
    python benchmarks/inversion.py --methods sardfq psaq --device cuda --steps 50

Whole runs of `synthesize` and of the bare loop take turns, so that other load on the machine slows all alike; the ratio is the
median over rounds. The bare loop is the timm model with frozen weights: cross-entropy, gradient to the pixels, Adam. "published
PSAQ" is the preset `psaq` with its similarity entropy in the published form, cosine similarity by broadcasting.
"""

import argparse
import resource
from functools import partial
from statistics import median

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vitdfq
from vitdfq.common.precision import PRECISIONS
from vitdfq.cost.timing import timed
from vitdfq.models import image_size
from vitdfq.synthesis import Loss, TeacherFacts
from vitdfq.synthesis.losses.patch_similarity import _entropy, attention_outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--methods", nargs="+", default=["sardfq", "psaq"])
    parser.add_argument("--precision", default="float32", choices=list(PRECISIONS))
    parser.add_argument("--steps", type=int, default=10, help="of one run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="also the bare loop under torch.compile: does it pay here?")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model(args.model).eval().requires_grad_(False)
    teacher = vitdfq.load_teacher(args.model, pretrained=False)
    teacher.load_state_dict(model.state_dict())
    runs = {"bare timm": partial(bare, model.to(args.device), image_size(teacher), args)}
    if args.compile:
        runs["bare timm, compiled"] = partial(bare, torch.compile(model), image_size(teacher), args)
    for name, options in variants(args.methods, teacher).items():
        runs[name] = partial(synthesize, teacher.to(args.device), args, options)
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(1 + args.rounds):  # the first round warms up
        for name, run in runs.items():
            seconds[name].append(timed(run))
    print(f"{args.model}, batch {args.batch_size}, {args.precision}, {args.device}, {torch.get_num_threads()} threads\n")
    print("| steps of | images x steps / s | share of bare | spread |\n|-|-:|-:|-:|")
    for name, (_, *times) in seconds.items():
        ratios = [time / bare_time for time, bare_time in zip(times, seconds["bare timm"][1:], strict=True)]
        rate = args.batch_size * args.steps / median(times)
        print(f"| {name} | {rate:.1f} | {median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} |")
    print(f"\npeak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def variants(methods: list[str], teacher: nn.Module) -> dict[str, dict]:
    """Name -> options of `synthesize`, without crops, since the bare loop has none."""
    options_by_name = {}
    for name in methods:
        options = {"method": name, "max_regions": 1}
        options_by_name[name] = options
        if name == "psaq":
            broadcast = {"function": Loss(broadcast_similarity, attention_outputs)}
            options_by_name["published PSAQ"] = options | {"losses": {"patch_similarity": {"weight": 0}, "broadcast": broadcast}}
        if TeacherFacts.of(teacher).sites[-1].class_row:
            options_by_name[f"{name}, sparse"] = options | {"prune_at": [0.1, 0.2, 0.3, 0.4]}
    return options_by_name


def synthesize(teacher: nn.Module, args: argparse.Namespace, options: dict) -> None:
    size = args.batch_size
    vitdfq.synthesize(teacher, num_images=size, batch_size=size, steps=args.steps, precision=args.precision, **options)


def bare(model: nn.Module, size: tuple[int, int], args: argparse.Namespace) -> None:
    images = torch.randn(args.batch_size, 3, *size, device=args.device).requires_grad_()
    labels = torch.arange(args.batch_size, device=args.device)
    optimizer = torch.optim.Adam([images], lr=0.2)
    dtype = PRECISIONS[args.precision]
    for _ in range(args.steps):
        optimizer.zero_grad()
        with torch.autocast(args.device, dtype, enabled=dtype is not None):
            logits = model(images)
        F.cross_entropy(logits.float(), labels).backward()
        optimizer.step()


def broadcast_similarity(ctx, *, bandwidth: float = 0.01, num_points: int = 10) -> Tensor:
    """PSAQ-ViT's published form: cosine similarity of all pairs by broadcasting, with (B, n, n, d) in memory."""
    entropies = []
    for site in ctx.sites:
        tokens = ctx.recorded[f"{site.name}.av"].mean(1)[:, site.num_prefix_tokens :]
        similarity = F.cosine_similarity(tokens[:, :, None], tokens[:, None], dim=-1)
        entropies.append(_entropy(similarity.reshape(len(ctx.images), -1), bandwidth, num_points))
    return -torch.stack(entropies).sum(0)


if __name__ == "__main__":
    main()
