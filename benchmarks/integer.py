"""The speed of integer students beside float32 and bfloat16: processor time of a timm model and of `to_integer`, in one run.

    OMP_NUM_THREADS=1 python benchmarks/integer.py --batch 1 8 32
    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI python benchmarks/integer.py
    OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/integer.py

Weights are random, unless the model is of the zoo: time does not depend on them. All models of a row run in turn. A figure is the
smallest of several measurements of processor time, which other jobs disturb little. Prints a markdown table, the processor and
which kernels ran.
"""

import argparse
import time
from copy import deepcopy
from typing import Any

import timm
import torch

import vitdfq
from vitdfq.cost.timing import autocast_bfloat16, least_times, processor_name
from vitdfq.models import image_size
from vitdfq.quantization.integer.fused.library import library


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w6a6", "w4a4"])
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    in_zoo = args.model.startswith("zoo:")
    float32 = vitdfq.load_teacher(args.model) if in_zoo else timm.create_model(args.model, pretrained=False).eval()
    models: dict[str, Any] = {"float32": float32, "bfloat16 autocast": autocast_bfloat16(float32)}
    prepared = vitdfq.prepare(float32 if in_zoo else vitdfq.load_teacher(deepcopy(float32)))
    size = image_size(prepared)
    for bits in args.bits:
        student = vitdfq.quantize(prepared, bits=bits)
        vitdfq.calibrate(student, prepared, torch.randn(4, 3, *size), steps=["observe"])
        start = time.process_time()
        models[f"`to_integer` {bits.upper()}"] = vitdfq.to_integer(student)
        print(f"to_integer, {bits}: {time.process_time() - start:.2f} s of processor time")
    kernels = library()
    groups = None if kernels is None else f"{kernels.group} codes, of {kernels.small.group} where products are small"
    blocks = "site by site" if groups is None else f"by kernels that multiply groups of {groups}"
    print(f"{args.model}, {size[1]} pixels, {torch.get_num_threads()} thread(s), {processor_name()}; blocks run {blocks}")
    print("\nprocessor time of an image in ms (times float32)\n")
    print(f"| batch | {' | '.join(models)} |\n|-:|{'-:|' * len(models)}")
    for batch in args.batch:
        times = least_times(models, torch.randn(batch, 3, *size), args.turns)
        base = times["float32"].processor_ms
        cells = (f"{taken.processor_ms:.1f} ({base / taken.processor_ms:.2f})" for taken in times.values())
        print(f"| {batch} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
