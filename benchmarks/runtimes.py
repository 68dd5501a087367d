"""Our exported files in onnxruntime and OpenVINO, beside float32, bfloat16 and NNCF's own int8: speed and agreement.

    pip install 'vitdfq[runtimes]'
    OMP_NUM_THREADS=1 python benchmarks/runtimes.py                        # DeiT-S at 224, random weights
    OMP_NUM_THREADS=1 python benchmarks/runtimes.py --model zoo:deit --dataset zoo:fashion-mnist --num-test 1000
    OMP_NUM_THREADS=1 python benchmarks/runtimes.py --model local-dir:PATH --dataset PATH --num-test 500 --images scenes \\
        --num-images 64 --batches                                          # agreement alone

NNCF quantizes the float file on the images that calibrate our students. A time is processor time for one image, the smallest of
several turns; all files take turns, so that other load on the machine slows all alike. "agreement" counts images with the class
of float32. Random weights do not change speed, and their agreement, on random images, means little.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.cost.timing import least_times
from vitdfq.evaluation import predict
from vitdfq.models import image_size
from vitdfq.onnx.runners import Runner, in_onnxruntime, in_openvino, openvino_has_bfloat16
from vitdfq.preparation.prepare import default_steps
from vitdfq.synthesis import METHODS

FLOAT = "float32, onnxruntime"
STUDENTS = {  # what the table calls it -> policy, and whether MLPs are rotated, which costs products of floats at run time
    "as by default": ("vitdfq", True),
    "policy openvino, MLPs not rotated": ("openvino", False),
}


class Outside(nn.Module):
    """A file in a runtime, called like a model."""

    def __init__(self, run: Runner, model: Any) -> None:
        super().__init__()
        self.run, self.pretrained_cfg, self.num_classes = run, model.pretrained_cfg, model.num_classes

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.run(images)))


def nncf_file(plain: Path, images: Tensor, path: Path) -> Path:
    """The float file quantized by NNCF as it recommends for transformers."""
    import nncf
    import openvino

    data = nncf.Dataset([image[None].numpy() for image in images])
    model = openvino.Core().read_model(plain)
    quantized = nncf.quantize(model, data, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(images))
    openvino.save_model(quantized, path, compress_to_fp16=False)
    return path


def student_of(teacher: nn.Module, images: Tensor, policy: str, *, rotates_mlps: bool) -> nn.Module:
    """A W8A8 student."""
    steps = [step for step in default_steps(teacher) if rotates_mlps or step != "rotate_mlp"]
    prepared = vitdfq.prepare(teacher, steps=steps)
    student = vitdfq.quantize(prepared, bits="w8a8", policy=policy)
    return vitdfq.calibrate(student, prepared, images, steps=["center", "observe"])


def files(teacher: nn.Module, images: Tensor, folder: Path, threads: int) -> Iterator[tuple[str, Runner]]:
    """Every row of the table: its title and how it runs."""
    plain = folder / "float.onnx"
    vitdfq.export(teacher, plain)
    yield FLOAT, in_onnxruntime(plain, threads)
    yield "float32, OpenVINO", in_openvino(plain, "f32", threads)
    if openvino_has_bfloat16():
        yield "bfloat16, OpenVINO", in_openvino(plain, "bf16", threads)
    yield "NNCF int8, OpenVINO", in_openvino(nncf_file(plain, images, folder / "nncf.xml"), "f32", threads)
    for title, (policy, rotates_mlps) in STUDENTS.items():
        student = student_of(teacher, images, policy, rotates_mlps=rotates_mlps)
        for runtime in ("onnxruntime", "openvino"):
            path = folder / f"{policy}_{runtime}.onnx"
            vitdfq.export(student, path, runtime=runtime)
            if runtime == "onnxruntime":
                yield f"W8A8 {title}, onnxruntime", in_onnxruntime(path, threads)
            else:
                yield f"W8A8 {title}, OpenVINO", in_openvino(path, "f32", threads)


def classes_of(runs: dict[str, Runner], teacher: Any, arguments: argparse.Namespace) -> dict[str, Tensor]:
    """The classes of the test images, or of random ones, by every file."""
    if arguments.dataset is None:
        images = torch.randn(arguments.num_test, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
        return {
            title: torch.cat([Outside(run, teacher)(part) for part in images.split(8)]).argmax(1) for title, run in runs.items()
        }
    given = {"dataset": arguments.dataset, "split": arguments.split, "num_images": arguments.num_test}
    return {title: predict(Outside(run, teacher).eval(), **given).logits.argmax(1) for title, run in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="deit_small_patch16_224", help="as a recipe names it, or a timm name: random weights")
    parser.add_argument("--dataset", default=None, help="default: random images")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--num-test", type=int, default=32)
    parser.add_argument("--images", default="dead_leaves", choices=list(METHODS), help="that calibrate")
    parser.add_argument("--num-images", type=int, default=16)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8, 32], help="to time; none: agreement alone")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    is_timm = ":" not in arguments.model
    teacher = vitdfq.load_teacher(timm.create_model(arguments.model) if is_timm else arguments.model)
    images = vitdfq.synthesize(teacher, method=arguments.images, num_images=arguments.num_images, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        runs = dict(files(teacher, images, Path(folder), arguments.threads))
        times = [least_times(runs, torch.randn(size, 3, *image_size(teacher)), arguments.turns) for size in arguments.batches]
        classes = classes_of(runs, teacher, arguments)
    print(f"{arguments.model}, {arguments.threads} thread(s), {arguments.num_test} test images; ms an image (times {FLOAT})\n")
    print("| " + " | ".join(["", "agreement %", *(f"batch {size}" for size in arguments.batches)]) + " |")
    print("|-|" + "-:|" * (1 + len(arguments.batches)))
    for title in runs:
        agreement = 100 * (classes[title] == classes[FLOAT]).float().mean().item()
        cells = [
            f"{least[title].processor_ms:.2f} ({least[FLOAT].processor_ms / least[title].processor_ms:.2f})" for least in times
        ]
        print("| " + " | ".join([title, f"{agreement:.1f}", *cells]) + " |", flush=True)


if __name__ == "__main__":
    main()
