"""How far integer copies are from their students: logits and arg-max on the zoo's whole test set.

    python benchmarks/integer_agreement.py --num-images 10000

Students are calibrated on noise, which is enough to compare two ways to compute the same. An activation within float rounding
of a boundary between two codes may get the other code; what that does to the logits is what the table shows. The last
columns count images whose first class differs, and say how near its first two classes the student saw there at most: their
difference as a share of the range of its logits. For scale each student is compared with itself in float64 too.
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
            wanted = logits(student, args.num_images)
            for title, got in (
                ("its integer copy", logits(vitdfq.to_integer(student), args.num_images)),
                ("itself in float64", logits(InFloat64(student).eval(), args.num_images)),
            ):
                print(f"| {name} | {bits} | {title} | {len(got)} | " + " | ".join(compared(wanted, got)) + " |", flush=True)


def logits(model: nn.Module, num_images: int) -> Tensor:
    return predict(model, dataset="zoo:fashion-mnist", num_images=num_images).logits


class InFloat64(nn.Module):
    """A copy of a model that takes float32 and computes in float64."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.pretrained_cfg, self.num_classes = deepcopy(model).double(), model.pretrained_cfg, model.num_classes

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images.double()).float()


def compared(wanted: Tensor, got: Tensor) -> list[str]:
    """The table's last four columns for logits (N, C)."""
    relative = (got - wanted).norm(dim=1) / wanted.norm(dim=1)
    differs = wanted.argmax(1) != got.argmax(1)
    first, second = wanted.topk(2).values.unbind(1)
    margins = ((first - second) / (wanted.amax(1) - wanted.amin(1)))[differs]
    largest = f"{margins.max():.1e}" if len(margins) else "-"
    return [f"{relative.mean():.1e}", f"{(relative > 1e-5).sum()}", f"{differs.sum()}", largest]


if __name__ == "__main__":
    main()
