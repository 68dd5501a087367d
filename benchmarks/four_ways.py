"""One checkpoint, loaded back and run four ways on its recipe's test images: does each say what the student says?

    python benchmarks/four_ways.py runs/quickstart

"simulated" is the student; "integer" multiplies int8; "onnxruntime" runs the exported file; "dequantized timm" is the plain model
of the quantized weights, whose activations stay in float: it is another model, and its top-1 another number.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import vitdfq
from vitdfq import progress
from vitdfq.evaluation import predict, score
from vitdfq.onnx.runtime import session
from vitdfq.onnx.trace import INPUT, OUTPUT


class InOnnxruntime(nn.Module):
    """An exported file, called like a model."""

    def __init__(self, file: Path, student: nn.Module) -> None:
        super().__init__()
        self.session = session(file.read_bytes(), threads=torch.get_num_threads())
        self.pretrained_cfg, self.num_classes = student.pretrained_cfg, student.num_classes

    def forward(self, images: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run([OUTPUT], {INPUT: images.numpy()})[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--num-test", type=int, default=None, help="first so many test images [as the recipe says]")
    args = parser.parse_args()
    progress.quiet = True
    evaluate = vitdfq.load_recipe(args.run / "recipe.yaml").evaluate
    if args.num_test:
        evaluate |= {"num_images": args.num_test}
    student = vitdfq.load(args.run)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        vitdfq.export(student, file)
        ways = {
            "simulated": student,
            "integer": vitdfq.to_integer(student),
            "onnxruntime": InOnnxruntime(file, student),
            "dequantized timm": vitdfq.load(args.run, dequantize=True),
        }
        wanted = None
        print("| way | top-1 % | images | same class as simulated | images a second |\n|-|-:|-:|-:|-:|")
        for name, model in ways.items():
            start = time.perf_counter()
            found = predict(model.eval(), **evaluate)
            rate = len(found.labels) / (time.perf_counter() - start)
            wanted = found.logits if wanted is None else wanted
            same = int((found.logits.argmax(1) == wanted.argmax(1)).sum())
            print(f"| {name} | {score(found)['top1']:.2f} | {len(found.labels)} | {same} | {rate:.0f} |", flush=True)


if __name__ == "__main__":
    main()
