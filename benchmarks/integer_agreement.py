"""The difference between integer copies and their students: logits and predicted classes on the zoo's test set.

    python benchmarks/integer_agreement.py --num-images 10000

Students are calibrated on noise, which suffices to compare two computations of one function. An activation within float
rounding of the boundary between two codes may get the other code; the table shows the effect on the logits. The last columns
count images with different predicted classes, and give the largest margin of the student among them: the difference of its two
largest logits, as a share of their range. As a reference each student is also compared with itself in float64.
"""

import argparse
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.evaluation import predict
from vitdfq.models import image_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["zoo:vit", "zoo:deit", "zoo:swin"])
    parser.add_argument("--bits", nargs="+", default=["w8a8", "w6a6", "w4a4"])
    parser.add_argument("--num-images", type=int, default=10000)
    args = parser.parse_args()
    print(
        "| model | bits | against the student | images | mean relative difference | differ by 1e-5 | other arg-max "
        "| largest margin there |"
    )
    print("|-|-|-|-:|-:|-:|-:|-:|")
    for name in args.models:
        prepared = vitdfq.prepare(vitdfq.load_teacher(name))
        for bits in args.bits:
            student = vitdfq.quantize(prepared, bits=bits)
            torch.manual_seed(0)
            vitdfq.calibrate(student, prepared, torch.randn(32, 3, *image_size(prepared)), steps=["center", "observe"])
            expected = logits(student, args.num_images)
            for title, result in (
                ("its integer copy", logits(vitdfq.to_integer(student), args.num_images)),
                ("itself in float64", logits(InFloat64(student).eval(), args.num_images)),
            ):
                cells = " | ".join(compare(expected, result))
                print(f"| {name} | {bits} | {title} | {len(result)} | {cells} |", flush=True)


def logits(model: nn.Module, num_images: int) -> Tensor:
    return predict(model, dataset="zoo:fashion-mnist", num_images=num_images).logits


class InFloat64(nn.Module):
    """A copy of a model that takes float32 and computes in float64."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.like, self.pretrained_cfg, self.num_classes = model, model.pretrained_cfg, model.num_classes
        self.double_model = [deepcopy(model).double()]  # no submodule: `evaluate` takes models in float32

    def forward(self, images: Tensor) -> Tensor:
        return self.double_model[0](images.double()).float()


def compare(expected: Tensor, result: Tensor) -> list[str]:
    """The table's last four columns for logits (N, C)."""
    relative = (result - expected).norm(dim=1) / expected.norm(dim=1)
    differs = expected.argmax(1) != result.argmax(1)
    first, second = expected.topk(2).values.unbind(1)
    margins = ((first - second) / (expected.amax(1) - expected.amin(1)))[differs]
    largest = f"{margins.max():.1e}" if len(margins) else "-"
    return [f"{relative.mean():.1e}", f"{(relative > 1e-5).sum()}", f"{differs.sum()}", largest]


if __name__ == "__main__":
    main()
