"""Digests of the results of the numeric core, to show that a change of the code's structure changes no number.

    python tools/gate.py --write before.json          # on the commit before the change
    python tools/gate.py --against before.json        # after it: prints the differences, exit code 1 if there are any

Everything runs on one thread. Digests depend on the processor and on the version of torch: compare on one machine only.
`--quick` omits the quickstart recipe (four minutes) and runs many small computations (two minutes). The tool uses the public
Python API only, so that renamed modules do not affect it.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import torch

import vitdfq
from vitdfq.synthesis import METHODS

ZOO = ("zoo:vit", "zoo:deit", "zoo:swin")
STEPS = {  # name -> steps of a calibration; together they reach every step and its main options
    "rewrites": ["equalize", "observe"],
    "reparameterize": ["reparameterize", "observe"],
    "trained": ["center", "observe", {"gptq": {"num_images": 16}}, {"reconstruct": {"iterations": 4}}, "correct_bias"],
    "adaround": ["observe", {"reconstruct": {"iterations": 4, "rounding": "adaround", "objective": "fisher"}}],
    "distilled": [{"center": {"guarded": False}}, "observe", {"distill": {"iterations": 4}}],
}
POLICIES = ("vitdfq", "vitdfq_dynamic", "openvino", "tensorrt", "repq_vit", "ptq4vit", "fq_vit", "adalog", "psaq_vit", "sardfq")


def digest(*tensors: torch.Tensor) -> str:
    """SHA-256 of the tensors' bytes, shortened."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return sha256.hexdigest()[:16]


def state_digest(model: torch.nn.Module) -> str:
    return digest(*(value for _, value in sorted(model.state_dict().items())))


def quick() -> Iterator[tuple[str, str]]:
    """Yield (name, digest) of small computations over the whole core."""
    teachers = {name: vitdfq.load_teacher(name) for name in ZOO}
    inputs = vitdfq.synthesize(teachers["zoo:vit"], method="noise", num_images=16, seed=7)
    images = {name: vitdfq.synthesize(teacher, method="dead_leaves", num_images=16) for name, teacher in teachers.items()}
    for name, procedural in images.items():
        yield f"pool/{name}", digest(procedural)
    for method in METHODS:
        for name in ("zoo:deit", "zoo:swin"):
            steps = 3 if METHODS[method].steps else None
            yield f"images/{name}/{method}", digest(vitdfq.synthesize(teachers[name], method=method, num_images=4, steps=steps))
    for name, teacher in teachers.items():
        prepared = vitdfq.prepare(teacher)
        yield f"prepared/{name}", digest(prepared(inputs))
        for bits in ("w4a4", "w8a8"):
            student = vitdfq.calibrate(
                vitdfq.quantize(prepared, bits=bits), prepared, images[name], steps=["center", "observe", "gptq"]
            )
            yield f"student/{name}/{bits}", state_digest(student)
            yield f"logits/{name}/{bits}", digest(student(inputs))
            yield f"integer/{name}/{bits}", digest(vitdfq.to_integer(student)(inputs))
        for title, steps in STEPS.items():
            plain = vitdfq.prepare(teacher, steps=["fold_layer_scale"]) if title in ("rewrites", "reparameterize") else prepared
            student = vitdfq.calibrate(vitdfq.quantize(plain, bits="w4a4"), plain, images[name], steps=steps)
            yield f"steps/{name}/{title}", digest(student(inputs))
    plain = vitdfq.prepare(teachers["zoo:deit"], steps=[])
    for policy in POLICIES:
        student = vitdfq.calibrate(vitdfq.quantize(plain, policy=policy), plain, images["zoo:deit"], steps=["observe"])
        yield f"policies/{policy}", digest(student(inputs))


def quickstart() -> Iterator[tuple[str, str]]:
    """Yield (name, digest) of the files of the recipe quickstart, without its baseline and with fewer test images."""
    with tempfile.TemporaryDirectory() as folder:
        changes = ["baselines=[]", "evaluate.num_images=1000"]
        metrics = vitdfq.run("recipes/quickstart.yaml", out=Path(folder) / "run", overrides=changes)
        for file in ("images.safetensors", "model.safetensors"):
            yield f"quickstart/{file}", hashlib.sha256((Path(folder) / "run" / file).read_bytes()).hexdigest()
        yield "quickstart/top1", str(metrics["student"]["top1"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = json.loads(args.against.read_text()) if args.against else {}
    digests: dict[str, str] = {}
    different = 0
    for name, value in [*quick(), *([] if args.quick else quickstart())]:
        digests[name] = value
        if name in before and before[name] != value:
            different += 1
            print(f"{name}: was {before.get(name)}, is {value}", flush=True)
    if args.write:
        args.write.write_text(json.dumps(digests, indent=2) + "\n")
    print(f"{len(digests)} digests, {different} differ" if before else f"{len(digests)} digests")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
