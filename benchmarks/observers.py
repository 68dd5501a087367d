"""The speed of the range search: vectorized, against Python loops over the same channels and candidates.

    OMP_NUM_THREADS=1 python benchmarks/observers.py             # ViT-S: 12 blocks of width 384; almost all the time is loops
    OMP_NUM_THREADS=1 python benchmarks/observers.py --blocks 1  # the layers repeat: the ratios are the same
    python benchmarks/observers.py --blocks 1 --device cuda

Searches the range of every weight, per output channel, and of every activation, per tensor and (queries, keys, values) per head.
Both are timed in turn, layer by layer. Both choose among the same ranges, for activations from the same histogram; the loops try
one range of one row at a time. A difference between the two choices is an error.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from vitdfq.cost import timing
from vitdfq.quantization.clip_search import search_rows, search_tensor
from vitdfq.quantization.functional import fake_quantize
from vitdfq.quantization.histogram import histogram
from vitdfq.quantization.observers import OBSERVERS

WIDTH, HEADS, TOKENS, BITS = 384, 6, 197, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for block in range(args.blocks):
        for kind, x, fast, slow in layers(block, args.images, torch.device(args.device)):
            seconds, qparams = timed(fast, x)
            totals[kind][0] += seconds
            seconds, expected = timed(slow, x)
            totals[kind][1] += seconds
            if not all(torch.equal(a, b) for a, b in zip(qparams, expected, strict=True)):
                raise SystemExit(f"{kind} of shape {tuple(x.shape)}: the two ways choose differently")
    totals["together"] = [sum(column) for column in zip(*totals.values(), strict=True)]
    print("| | search s | loops s | ratio |\n|-|-:|-:|-:|")
    for kind, (fast, slow) in totals.items():
        print(f"| {kind} | {fast:.2f} | {slow:.2f} | {slow / fast:.1f} |")


def layers(seed: int, images: int, device: torch.device) -> Iterator[tuple[str, Tensor, Callable, Callable]]:
    """One block's weights and activations: (kind, values, search, loop)."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng).to(device)

    for out, columns in ((3 * WIDTH, WIDTH), (WIDTH, WIDTH), (4 * WIDTH, WIDTH), (WIDTH, 4 * WIDTH)):
        yield "weights per channel", normal(out, columns) * 0.03, search_weights, loop_over_channels
    for columns in (WIDTH, WIDTH, WIDTH, 4 * WIDTH):
        yield "activations per tensor", torch.sinh(normal(images, TOKENS, columns)), search_activations, loop_over_ranges
    for _ in range(3):
        heads = normal(images, HEADS, TOKENS, WIDTH // HEADS)
        yield "activations per head", heads, search_heads, loop_over_heads


def search_weights(rows: Tensor) -> tuple[Tensor, Tensor]:
    return search_rows(rows, BITS, False)


def search_activations(x: Tensor) -> tuple[Tensor, Tensor]:
    return search_tensor(x, BITS, False)


def search_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    return search_tensor(x, BITS, False, heads=True)


@torch.no_grad()
def loop_over_channels(rows: Tensor) -> tuple[Tensor, Tensor]:
    return _loop(rows, None, *OBSERVERS["mse"].rows(rows, BITS, False))


@torch.no_grad()
def loop_over_ranges(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.reshape(1, -1)
    return _loop(*histogram(rows), *OBSERVERS["mse"].tensor(rows, BITS, False))


@torch.no_grad()
def loop_over_heads(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = x.movedim(-3, 0).flatten(1)
    return _loop(*histogram(rows), *OBSERVERS["mse"].tensor(rows, BITS, False))


def _loop(rows: Tensor, counts: Tensor | None, scales: Tensor, zero_points: Tensor) -> tuple[Tensor, Tensor]:
    """The best of each row's candidates (R, K), one at a time: (scale, zero_point), each (R, 1)."""
    best = []
    for row in range(len(rows)):
        errors = []
        for scale, zero_point in zip(scales[row], zero_points[row], strict=True):
            squared = (fake_quantize(rows[row], scale, zero_point, BITS) - rows[row]).square()
            errors.append((squared if counts is None else squared * counts[row]).sum())
        best.append(torch.stack(errors).argmin())
    chosen = torch.stack(best)[:, None]
    return scales.gather(1, chosen), zero_points.gather(1, chosen)


def timed(function: Callable, x: Tensor) -> tuple[float, tuple[Tensor, Tensor]]:
    """Seconds of one call, and its result."""
    results = []
    seconds = timing.timed(lambda: results.append(function(x)))
    return seconds, results[0]


if __name__ == "__main__":
    main()
