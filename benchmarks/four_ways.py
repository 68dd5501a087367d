"""One checkpoint, run in four ways on its recipe's test images: do they predict the same classes?

    python benchmarks/four_ways.py runs/quickstart

"simulated" is the student, "integer" multiplies int8, "onnxruntime" runs the exported file; all three are compared with the
student. "dequantized timm" is the timm model with the quantized weights. Its activations are not quantized, so it is compared
with the student without activation quantizers, "simulated, weights only".
"""

import argparse
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq.evaluation import predict, score
from vitdfq.onnx.runtime import session
from vitdfq.onnx.trace import INPUT
from vitdfq.quantization.modules import activation_quantizers


class InOnnxruntime(nn.Module):
    """An exported file, called like a model."""

    def __init__(self, file: Path, student: nn.Module) -> None:
        super().__init__()
        self.session = session(file.read_bytes(), threads=torch.get_num_threads())
        self.pretrained_cfg, self.num_classes = student.pretrained_cfg, student.num_classes

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {INPUT: images.numpy()})[0])


def weights_only(student: nn.Module) -> nn.Module:
    """A copy of a student that does not quantize activations."""
    model = deepcopy(student)
    for quantizer in activation_quantizers(model):
        quantizer.forward = nn.Identity().forward
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--num-test", type=int, default=None, help="number of test images, from the first (default: the recipe's)"
    )
    args = parser.parse_args()
    evaluate = vitdfq.load_recipe(args.run / "recipe.yaml").evaluate
    if args.num_test:
        evaluate |= {"num_images": args.num_test}
    student = vitdfq.load(args.run)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        vitdfq.export(student, file)
        ways = {  # name: (model, name of the one it is compared with)
            "simulated": (student, "simulated"),
            "integer": (vitdfq.to_integer(student), "simulated"),
            "onnxruntime": (InOnnxruntime(file, student), "simulated"),
            "simulated, weights only": (weights_only(student), "simulated, weights only"),
            "dequantized timm": (vitdfq.load(args.run, dequantize=True), "simulated, weights only"),
        }
        classes: dict[str, Tensor] = {}
        print("| way | top-1 % | images | of the same class as | | images a second |\n|-|-:|-:|-|-:|-:|")
        for name, (model, reference) in ways.items():
            start = time.perf_counter()
            predictions = predict(model.eval(), **evaluate)
            count = len(predictions.labels)
            rate = count / (time.perf_counter() - start)
            classes[name] = predictions.logits.argmax(1)
            same = int((classes[name] == classes[reference]).sum())
            print(f"| {name} | {score(predictions)['top1']:.2f} | {count} | {reference} | {same} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
