"""How cost grows with processes, images, steps, image size and model.

    python benchmarks/scale.py processes --model zoo:deit        # 1 and 2 processes, one thread each, on the CPU
    python benchmarks/scale.py start                             # the overhead of a command
    python benchmarks/scale.py images steps size models          # ViT-S/16 with random weights, which do not change speed
    python benchmarks/scale.py forecast --models vit_large_patch16_224       # the estimate of --dry-run against a run

"processes" launches the command and reads the seconds of its stages; efficiency is the time of one process divided by the number
of processes times their time. "forecast" launches `vitdfq run --dry-run`, then the run itself, once up to the images and once up
to the student, and takes peak memory from the operating system. The others time `synthesize` and `calibrate` in this process,
after one call that warms up; the cost is linear if the last column is constant.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
import yaml

import vitdfq
from vitdfq.cost.timing import timed

STEPS = ["equalize_values", "center", "observe", "gptq", "distill"]
SHAPES = [f"{name}_224" for name in ("deit_tiny_patch16", "deit_small_patch16", "deit_base_patch16", "swin_base_patch4_window7")]
SHAPES.append("vit_large_patch16_224")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=list(TABLES))
    parser.add_argument("--models", nargs="+", default=SHAPES, help="of forecast")
    parser.add_argument("--model", default=None, help="default: vit_small_patch16_224 with random weights; processes: zoo:deit")
    parser.add_argument("--processes", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--num-images", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    for what in args.what:
        TABLES[what](args)


def processes(args: argparse.Namespace) -> None:
    """Seconds of the stages of one command in 1, 2, ... processes."""
    print("| processes | synthesis s | efficiency | calibration s | efficiency |\n|-:|-:|-:|-:|-:|")
    alone: dict[str, float] = {}
    for count in args.processes:
        seconds = launched(args, count)
        alone = alone or seconds
        shares = {stage: alone[stage] / (count * seconds[stage]) for stage in seconds}
        cells = (f"{seconds[stage]:.1f} | {shares[stage]:.2f}" for stage in ("synthesis", "calibration"))
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


def launched(args: argparse.Namespace, count: int) -> dict[str, float]:
    """Seconds of synthesis and calibration of a run with `count` processes, each with a GPU or one thread."""
    recipe = {
        "name": "scale",
        "model": {"name": args.model or "zoo:deit"},
        "synthesize": {"method": "sardfq", "num_images": args.num_images, "steps": args.steps, "batch_size": 8},
        "quantize": {"bits": "w4a4"},
        "calibrate": {"steps": STEPS},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.yaml"
        path.write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), "-m"]
        command += ["vitdfq", "calibrate", str(path), "--out", f"{folder}/out", "--format", "json"]
        on_cpu = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        environment = os.environ | on_cpu
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    metrics = json.loads(done.stdout)
    return {stage: metrics[stage]["seconds"] for stage in ("synthesis", "calibration")}


def forecast(args: argparse.Namespace) -> None:
    """Time and memory of a short run, as estimated by the dry run and as measured."""
    print("| model | stage | estimated s | measured s | ratio | estimated GB | peak GB | ratio |\n|-|-|-:|-:|-:|-:|-:|-:|")
    for name in args.models:
        recipe = {
            "name": "scale",
            "model": {"name": name} if ":" in name else {"name": name, "pretrained": False},
            "synthesize": {"method": "sardfq", "num_images": args.num_images, "steps": args.steps},
            "quantize": {"bits": "w4a4"},
            "calibrate": {"steps": [*STEPS[:-1], {"distill": {"iterations": 2}}]},
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scale.yaml"
            path.write_text(yaml.safe_dump(recipe))
            plan, _ = run_command(["run", str(path), "--dry-run"])
            for stage, key in (("synthesize", "synthesis"), ("calibrate", "calibration")):
                metrics, peak = run_command([stage, str(path), "--out", f"{folder}/out"])
                estimated, seconds = plan["seconds"][stage], metrics[key]["seconds"]
                gigabytes = plan["peak_bytes"][stage] / 1e9
                cells = [f"{value:.1f}" for value in (estimated, seconds, gigabytes, peak)]
                cells.insert(2, f"{estimated / seconds:.2f}")
                print(f"| {name} | {stage} | {' | '.join(cells)} | {gigabytes / peak:.2f} |", flush=True)


def run_command(arguments: list[str]) -> tuple[dict, float]:
    """Run a command of the command line: its JSON output and its peak memory in GB."""
    with tempfile.TemporaryFile("w+") as printed:
        process = subprocess.Popen([sys.executable, "-m", "vitdfq", "--quiet", *arguments, "--format", "json"], stdout=printed)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, arguments
        printed.seek(0)
        return json.load(printed), usage.ru_maxrss * 1024 / 1e9


def start(args: argparse.Namespace) -> None:
    """Seconds of a command that makes one image of noise for a model of the zoo, and of importing torch and timm."""
    print("| command | s |\n|-|-:|")
    recipe = {"name": "scale", "model": {"name": "zoo:deit"}, "synthesize": {"method": "noise", "num_images": 1}}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.yaml"
        path.write_text(yaml.safe_dump(recipe))
        noise = ["-m", "vitdfq", "--quiet", "synthesize", str(path), "--out"]
        commands = {
            "importing torch and timm": lambda number: ["-c", "import torch, timm"],
            "one image of noise": lambda number: [*noise, f"{folder}/{number}"],
        }
        for title, command in commands.items():
            runs = [[sys.executable, *command(number)] for number in range(3)]
            seconds = [timed(lambda run=run: subprocess.run(run, check=True, stdout=subprocess.DEVNULL)) for run in runs]
            print(f"| {title} | {min(seconds):.1f} |", flush=True)


def images(args: argparse.Namespace) -> None:
    name = args.model or "vit_small_patch16_224"
    growth("images", [(n, name, n, args.steps, {}) for n in (8, 16, 32)])


def steps(args: argparse.Namespace) -> None:
    name = args.model or "vit_small_patch16_224"
    growth("steps", [(n, name, 8, n, {}) for n in (5, 10, 20)])


def size(args: argparse.Namespace) -> None:
    name = args.model or "vit_small_patch16_224"
    growth("pixels a side", [(side, name, 8, args.steps, {"img_size": side}) for side in (96, 160, 224)])


def models(args: argparse.Namespace) -> None:
    names = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")
    growth("million parameters", [(None, name, 8, args.steps, {}) for name in names])


def growth(title: str, runs: list[tuple]) -> None:
    print(f"\n| {title} | synthesis s | per unit | calibration s | per unit |\n|-:|-:|-:|-:|-:|")
    for amount, name, num_images, num_steps, options in runs:
        teacher = vitdfq.load_teacher(name, pretrained=False, **options)
        amount = amount or round(sum(parameter.numel() for parameter in teacher.parameters()) / 1e6)
        vitdfq.synthesize(teacher, num_images=2, steps=1)  # warms up
        synthesis = partial(vitdfq.synthesize, teacher, method="psaq", num_images=num_images, steps=num_steps)
        images = vitdfq.synthesize(teacher, method="dead_leaves", num_images=num_images)
        prepared = vitdfq.prepare(teacher)
        student = vitdfq.quantize(prepared, bits="w4a4")
        calibration = partial(vitdfq.calibrate, student, prepared, images, steps=["observe", {"distill": {"iterations": 10}}])
        seconds = [timed(synthesis), timed(calibration)]
        print(f"| {amount} | " + " | ".join(f"{value:.1f} | {value / amount:.3f}" for value in seconds) + " |", flush=True)


TABLES = {
    "processes": processes,
    "start": start,
    "images": images,
    "steps": steps,
    "size": size,
    "models": models,
    "forecast": forecast,
}


if __name__ == "__main__":
    main()
