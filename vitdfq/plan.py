"""--dry-run: what a recipe would load, synthesise, quantize and write, and about how long; no weights, no network."""

import inspect
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vitdfq import processes
from vitdfq.calibration import STEPS
from vitdfq.calibration.calibrate import check_steps
from vitdfq.models import image_size, load_teacher
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import QuantConv2d, QuantLinear, QuantMatMul
from vitdfq.recipe import Recipe
from vitdfq.synthesis import Method, resolve_method
from vitdfq.synthesis.generate import GROUP_SIZE
from vitdfq.synthesis.methods import parts_of
from vitdfq.synthesis.mixture import kinds

# Seconds are floating-point operations divided by this machine's rate of matrix products, times how far each stage falls short
# of that rate; the three factors were measured on 2 CPU cores with the zoo's models.
SHORTFALL = {"synthesize": 2.0, "calibrate": 3.0, "evaluate": 2.0}
FILES = ["images.safetensors", "config.json", "model.safetensors", "recipe.yaml", "metrics.json", "README.md", "reports/"]
IMAGES_OF = {"imagenet-1k": 50_000, "zoo:fashion-mnist": 10_000}


@dataclass(frozen=True)
class Plan:
    """What `vitdfq run --dry-run` shows."""

    recipe: str
    model: dict[str, Any]
    images: dict[str, Any]
    sites: list[dict[str, Any]]
    folder: str
    files: list[str]
    push: str | None
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self) -> Group:
        table = Table(title="sites", title_justify="left")
        for column in ("site", "weight", "weight bits", "input bits"):
            table.add_column(column)
        for site in self.sites:
            inputs = ", ".join("float" if bits is None else str(bits) for bits in site["input_bits"])
            shape = "x".join(map(str, site["shape"] or []))
            table.add_row(site["name"], shape, str(site["weight_bits"] or ""), inputs)
        seconds = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in self.seconds.items())
        lines = [
            f"recipe      {self.recipe}",
            f"load        {self.model['name']}: {self.model['parameters'] / 1e6:.1f} M parameters",
            "synthesise  {num_images} images {height}x{width}, method {method}, {steps} steps".format(**self.images),
            f"evaluate    {self.images['evaluated_on']}",
            f"write       {self.folder}/: {', '.join(self.files)}",
            *([f"publish     {self.push}"] if self.push else []),
            f"estimate    {seconds}; {self.model['packed_bytes'] / 1e6:.1f} MB on disk",
        ]
        return Group(*lines, table)


def plan(recipe: Recipe, out: str | None = None) -> Plan:
    """Work out a recipe's plan from the structure of the model alone."""
    model = load_teacher(**recipe.model | {"pretrained": False})
    student = quantize(prepare(model, **recipe.prepare), **recipe.quantize)
    options = {"num_images": 32, "method": "sardfq"} | recipe.synthesize
    chosen = {key: options[key] for key in ("steps", "max_regions", "engine", "among") if key in options}
    method = resolve_method(options["method"], options.get("losses"), **chosen)
    height, width = image_size(model)
    dataset = recipe.evaluate.get("dataset", "imagenet-1k")
    sites = [_site(name, part) for name, part in student.named_modules() if _is_site(part)]
    return Plan(
        recipe=recipe.name,
        model={
            "name": recipe.model["name"],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "packed_bytes": _packed_bytes(student),
        },
        images={
            "num_images": options["num_images"],
            "height": height,
            "width": width,
            "method": options["method"],
            "steps": method.steps,
            "evaluated_on": f"{recipe.evaluate.get('num_images') or 'all'} images of {dataset}",
        },
        sites=sites,
        folder=out or f"runs/{recipe.name}",
        files=FILES,
        push=recipe.push.get("repo"),
        seconds=_seconds(recipe, model, student, options, method, dataset),
    )


def _is_site(part: nn.Module) -> bool:
    return isinstance(part, QuantLinear | QuantConv2d | QuantMatMul)


def _site(name: str, part: nn.Module) -> dict[str, Any]:
    if isinstance(part, QuantMatMul):
        bits = [getattr(part.left_quantizer, "bits", None), getattr(part.right_quantizer, "bits", None)]
        return {"name": name, "shape": None, "weight_bits": None, "input_bits": bits}
    return {
        "name": name,
        "shape": list(part.weight.shape),
        "weight_bits": getattr(part.weight_quantizer, "bits", None),
        "input_bits": [getattr(part.input_quantizer, "bits", None)],
    }


def _packed_bytes(student: nn.Module) -> int:
    packed = 0
    for part in student.modules():
        if isinstance(part, QuantLinear | QuantConv2d):
            packed += part.weight.numel() * getattr(part.weight_quantizer, "bits", 32) // 8 - part.weight.numel() * 4
    return packed + 4 * sum(parameter.numel() for parameter in student.parameters())


def _seconds(
    recipe: Recipe, model: nn.Module, student: nn.Module, options: dict[str, Any], method: Method, dataset: str
) -> dict[str, float]:
    """Rough seconds a stage: counted operations over the measured rate of a matrix product."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, *image_size(model)))
    forward = counter.get_total_flops() / _flops_per_second()
    num_images = options["num_images"]
    students = 1 + len(recipe.baselines)
    evaluated = recipe.evaluate.get("num_images") or IMAGES_OF.get(dataset, 50_000)
    return {
        "synthesize": forward * _views(method, num_images) * 2 * SHORTFALL["synthesize"],
        "calibrate": forward * _passes(recipe, student, num_images) * students * SHORTFALL["calibrate"],
        "evaluate": forward * evaluated * (1 + students) * SHORTFALL["evaluate"],
    }


def _views(method: Method, num_images: int) -> float:
    """How many images go forward and back in a synthesis."""
    order, seen = kinds(num_images, method.among), 0.0
    for kind, part in parts_of(method).items():
        # A generator paints a batch a step; an image is shown whole and, on average, in so many crops.
        moved = part.group_size or GROUP_SIZE if part.engine == "generator" else order.count(kind)
        seen += moved * part.steps * (1 + sum(range(2, part.max_regions + 1)) / part.max_regions)
    return seen


def _passes(recipe: Recipe, student: nn.Module, num_images: int) -> int:
    """Forward passes of one image that calibration costs; a backward pass counts two."""
    passes = 0
    for name, given in check_steps(student, recipe.calibrate.get("steps")):
        defaults = {key: value.default for key, value in inspect.signature(STEPS[name]).parameters.items()}
        options = defaults | given
        if "iterations" in options:
            teacher = 1 if name == "distill" else 0  # at every step
            passes += (teacher + 3) * options["iterations"] * min(options["batch_size"], num_images)
        else:
            often = 3 if name == "gptq" else 1  # up to each of a block's linear layers
            passes += often * min(options["num_images"], num_images)
    return passes


def _flops_per_second() -> float:
    """Rate of a float32 matrix product of this machine: the fastest of a few, since other work may be running."""
    device = processes.start()
    a = torch.randn(512, 512, device=device)
    seconds = []
    for _ in range(20):
        start = time.perf_counter()
        (a @ a).sum().item()
        seconds.append(time.perf_counter() - start)
    return 2 * 512**3 / min(seconds)
