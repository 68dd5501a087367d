"""Try the versions of dependencies that pyproject.toml allows: the main job and a round trip of the checkpoint with each.

    python tools/versions.py                 # all packages at their floors, as pip resolves them; then all at their newest
    python tools/versions.py --each          # and each package alone at its floor, the others as installed here
    python tools/versions.py timm==1.0.26    # only this version, the others as installed here

Needs a package index; minutes and gigabytes for an environment with its own torch, seconds for one package alone.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

CHECKOUT = Path(__file__).resolve().parents[1]
EXTRAS = ("report", "onnx", "analyze")
NOT_ALONE = {"torch"}  # brings libraries of its own and needs a torchvision that fits: only in an environment of its own
RECIPE = """\
name: versions
model: {name: "zoo:swin"}
synthesize: {method: sardfq, num_images: 4, steps: 2}
calibrate: {steps: [center, observe, gptq, {distill: {iterations: 2}}]}
evaluate: {dataset: "zoo:fashion-mnist", split: test, num_images: 50}
min_agreement: 10
"""
JOB = """
import json, sys, torch, vitdfq
from pathlib import Path
folder = Path("runs/versions")
metrics = json.loads((folder / "metrics.json").read_text())
student = vitdfq.load(folder)
again = vitdfq.load(vitdfq.save(student, "again"))
images = torch.randn(4, 3, 28, 28)
assert torch.equal(student(images), again(images)), "load(save(student)) has other logits"
top1 = vitdfq.evaluate(student, dataset="zoo:fashion-mnist", split="test", num_images=50)["top1"]
assert top1 == metrics["student"]["top1"], (top1, metrics["student"]["top1"])
vitdfq.to_integer(student)(images)
vitdfq.export(student, "model.onnx")
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pins", nargs="*", metavar="PACKAGE==VERSION")
    parser.add_argument("--each", action="store_true", help="also each package alone at its floor")
    arguments = parser.parse_args()
    floors = {requirement.name: floor(requirement) for requirement in requirements()}
    alone = arguments.pins or [
        f"{name}=={version}" for name, version in floors.items() if arguments.each and name not in NOT_ALONE
    ]
    trials = [(f"{pin}, the rest as here", [pin], beside_this) for pin in alone]
    if not arguments.pins:
        oldest = [f"{name}=={version}" for name, version in floors.items()]
        trials += [("all at their floors", oldest, of_its_own), ("all at their newest", [], of_its_own)]
    failed = 0
    for title, pins, environment in trials:
        with tempfile.TemporaryDirectory() as folder:
            problem = environment(Path(folder) / "venv", pins) or job(Path(folder))
        failed += problem is not None
        print(f"{'FAILS ' if problem else 'works '} {title}{': ' + problem if problem else ''}", flush=True)
    return int(failed > 0)


def requirements() -> list[Requirement]:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in EXTRAS for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


def floor(requirement: Requirement) -> str:
    [version] = [part.version for part in requirement.specifier if part.operator == ">="]
    return version


def of_its_own(venv: Path, pins: list[str]) -> str | None:
    """A fresh environment with the project installed as pip resolves it."""
    return create(venv) or pip(venv, "--upgrade", *pins, "-e", f"{CHECKOUT}[{','.join(EXTRAS)}]")


def beside_this(venv: Path, pins: list[str]) -> str | None:
    """An environment that finds this one's packages behind its own; pip replaces those that do not fit to the pins."""
    problem = create(venv)
    behind = venv / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "behind.pth"
    behind.write_text(f"{sysconfig.get_paths()['purelib']}\n{CHECKOUT}\n")
    return problem or pip(venv, *pins, *map(str, requirements()))


def create(venv: Path) -> str | None:
    return output_of_failure([sys.executable, "-m", "venv", str(venv)], venv.parent)


def pip(venv: Path, *arguments: str) -> str | None:
    return output_of_failure([str(venv / "bin/python"), "-m", "pip", "install", "--quiet", *arguments], venv.parent)


def job(folder: Path) -> str | None:
    """The command and the checks of JOB; the last line of what failed."""
    (folder / "versions.yaml").write_text(RECIPE)
    python = str(folder / "venv/bin/python")
    commands = [[python, "-m", "vitdfq", "--quiet", "run", "versions.yaml"], [python, "-c", JOB]]
    return next((problem for command in commands if (problem := output_of_failure(command, folder))), None)


def output_of_failure(command: list[str], folder: Path) -> str | None:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
    return lines[-1][:300] if done.returncode else None


if __name__ == "__main__":
    sys.exit(main())
