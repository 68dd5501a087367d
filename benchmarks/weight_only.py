"""Weight-only students by PyTorch's own kernels of packed weights, beside float32, bfloat16 and `to_integer`.

    OMP_NUM_THREADS=1 python benchmarks/weight_only.py                     # DeiT-S at 224, random weights: processor time
    OMP_NUM_THREADS=1 python benchmarks/weight_only.py --model zoo:deit --dataset zoo:fashion-mnist --num-test 1000

The layers of the blocks have symmetric weights of 8 bits for each channel (`_weight_int8pack_mm`), or of 4 bits in groups of 32
columns (`_weight_int4pack_mm_for_cpu`, which takes groups of 32, 64, 128 or 256). Agreement and
KL, on the test images of a named set, are those with float32. `--float32` adds the kernels in float32.
"""

import argparse
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from typing import Any

import timm
import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.cost.timing import autocast_bfloat16, in_bfloat16, least_times, processor_name
from vitdfq.evaluation import predict
from vitdfq.evaluation.score import score
from vitdfq.models import image_size

GROUP = 32


class Int8Linear(nn.Module):
    """A linear layer whose weight is int8 with a scale for each output channel."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        scale = layer.weight.abs().amax(1) / 127
        self.codes = (layer.weight / scale[:, None]).round().to(torch.int8)
        self.scale, self.bias = scale.to(dtype), layer.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(self.scale.dtype)
        product = torch.ops.aten._weight_int8pack_mm(rows, self.codes, self.scale) + self.bias
        return product.view(*x.shape[:-1], -1)


class Int4Linear(nn.Module):
    """A linear layer whose weight has 4 bits and a scale for each group of columns."""

    def __init__(self, layer: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        groups = layer.weight.unflatten(1, (-1, GROUP))
        scale = groups.abs().amax(2) / 7.5
        codes = (groups / scale[..., None]).round().clamp(-8, 7).to(torch.int32) + 8
        self.codes = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.flatten(1).contiguous(), 1)
        self.scale = torch.stack([scale.T, torch.zeros_like(scale.T)], -1).to(dtype).contiguous()
        self.bias = layer.bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(self.scale.dtype)
        product = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.codes, GROUP, self.scale) + self.bias
        return product.view(*x.shape[:-1], -1)


def packed(model: nn.Module, layer: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    """A copy of the model with other linear layers in its blocks."""
    model = deepcopy(model)
    for name, part in list(model.named_modules()):
        if isinstance(part, nn.Linear) and name.startswith("blocks."):
            model.set_submodule(name, layer(part))
    return model


def integer_student(teacher: nn.Module, bits: str) -> nn.Module:
    prepared = vitdfq.prepare(teacher)
    student = vitdfq.quantize(prepared, bits=bits)
    return vitdfq.to_integer(vitdfq.calibrate(student, prepared, torch.randn(2, 3, *image_size(teacher)), steps=["observe"]))


def forms_of(teacher: nn.Module, *, float32: bool) -> dict[str, Callable[[Tensor], Any]]:
    forms: dict[str, Callable[[Tensor], Any]] = {
        "float32": teacher,
        "bfloat16 autocast": autocast_bfloat16(teacher),
        "bfloat16": in_bfloat16(teacher),
        "`to_integer` W8A16": integer_student(teacher, "w8a16"),
        "`to_integer` W8A8": integer_student(teacher, "w8a8"),
    }
    for title, layer in {"int8": Int8Linear, "int4": Int4Linear}.items():
        forms[f"{title}, bfloat16"] = autocast_bfloat16(packed(teacher, partial(layer, dtype=torch.bfloat16)))
        if float32:
            forms[f"{title}, float32"] = packed(teacher, partial(layer, dtype=torch.float32))
    return forms


class Computed(nn.Module):
    """A form as a model that `predict` takes."""

    def __init__(self, run: Callable[[Tensor], Any], teacher: Any) -> None:
        super().__init__()
        self.run, self.pretrained_cfg, self.num_classes = run, teacher.pretrained_cfg, teacher.num_classes

    def forward(self, images: Tensor) -> Tensor:
        return self.run(images).float()


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224", help="zoo:..., or a timm name: random weights")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8], help="to time; none: accuracy alone")
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--float32", action="store_true", help="also the kernels in float32")
    parser.add_argument("--dataset", default=None, help="for agreement and KL")
    parser.add_argument("--num-test", type=int, default=1000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    teacher: Any = vitdfq.load_teacher(arguments.model if ":" in arguments.model else timm.create_model(arguments.model))
    forms = forms_of(teacher, float32=arguments.float32)
    print(f"{arguments.model}, {torch.get_num_threads()} thread(s), {processor_name()}, torch {torch.__version__}")
    for batch in arguments.batches:
        times = least_times(forms, torch.randn(batch, 3, *image_size(teacher)), arguments.turns)
        base = times["float32"].processor_ms
        print(f"\n| batch {batch} | ms of processor time an image | times as fast as float32 |\n|-|-:|-:|")
        for title, time in times.items():
            print(f"| {title} | {time.processor_ms:.1f} | {base / time.processor_ms:.2f} |", flush=True)
    if arguments.dataset is None:
        return
    given = {"dataset": arguments.dataset, "num_images": arguments.num_test}
    expected = predict(teacher, **given).logits
    print("\n| | agreement % | KL |\n|-|-:|-:|")
    for title, run in forms.items():
        result = score(predict(Computed(run, teacher).eval(), **given), expected)
        print(f"| {title} | {result['agreement']:.1f} | {result['kl']:.5f} |", flush=True)


if __name__ == "__main__":
    main()
