"""W8A8 against float32, both exported and run by onnxruntime on the CPU.

    python benchmarks/onnx_speed.py                                    # DeiT-S/16 at 224 px with random weights, batch 8
    python benchmarks/onnx_speed.py --model zoo:deit --batch 64 --bits w8a8 w4a4

Random weights do not change speed. The two sessions take turns, so that other load on the machine slows both; the ratio is that
of the medians.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import timm
import torch

import vitdfq
from vitdfq.cost.timing import timed
from vitdfq.models import image_size
from vitdfq.onnx import runtime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224", help="zoo:..., or a timm name: random weights")
    parser.add_argument("--bits", nargs="+", default=["w8a8"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=15)
    args = parser.parse_args()
    teacher = vitdfq.load_teacher(args.model if ":" in args.model else timm.create_model(args.model, pretrained=False))
    images = torch.randn(args.batch, 3, *image_size(teacher))
    print(f"{args.model}, batch {args.batch}, {args.threads} threads, {args.turns} turns")
    print("| | ms | float ms | ratio | MB | float MB | integer sites | simulated |\n|-|-:|-:|-:|-:|-:|-:|-:|")
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float.onnx"
        vitdfq.export(teacher, plain)
        for bits in args.bits:
            path = Path(folder) / f"{bits}.onnx"
            result = vitdfq.export(student_of(teacher, bits), path)
            ms, float_ms = median_times([path.read_bytes(), plain.read_bytes()], images, args.threads, args.turns)
            counts = [kernels.get("integer", 0) for kernels in result["kernels"].values()]
            total = sum(sum(kernels.values()) for kernels in result["kernels"].values())
            sizes = f"{path.stat().st_size / 1e6:.1f} | {plain.stat().st_size / 1e6:.1f}"
            print(
                f"| {bits} | {ms:.1f} | {float_ms:.1f} | {ms / float_ms:.2f} | {sizes} | {sum(counts)} | {total - sum(counts)} |"
            )


def student_of(teacher: torch.nn.Module, bits: str) -> torch.nn.Module:
    """A student with the fastest calibration, since its ranges do not change the speed."""
    prepared = vitdfq.prepare(teacher)
    images = vitdfq.synthesize(teacher, method="noise", num_images=4)
    return vitdfq.calibrate(vitdfq.quantize(prepared, bits=bits), prepared, images, steps=["observe"])


def median_times(models: list[bytes], images: torch.Tensor, threads: int, turns: int) -> list[float]:
    """Median milliseconds of each model for one batch; each runs once in each turn."""
    sessions = [runtime.session(model, threads) for model in models]
    pixels = {sessions[0].get_inputs()[0].name: images.numpy()}
    times: list[list[float]] = [[] for _ in sessions]
    for _ in range(2 + turns):  # the first two turns warm up
        for session, session_times in zip(sessions, times, strict=True):
            session_times.append(1000 * timed(lambda session=session: session.run(None, pixels)))
    return [median(session_times[2:]) for session_times in times]


if __name__ == "__main__":
    main()
