"""`--dry-run`: what a recipe would load, synthesize, quantize and write, with estimates of time and memory for one process.

It needs no weights and no network, since random weights cost the same. Local weights are loaded all the same: whether procedural
images are noise to the teacher (`synthesis/teacher_filter.py`) depends on them. Without weights they are taken not to be.
"""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group
from rich.table import Table
from torch import nn

from vitdfq.cost.estimate import estimate_cost, evaluated_images
from vitdfq.cost.site_groups import grouped
from vitdfq.data import check_own_images
from vitdfq.evaluation import HEAD, EvaluationOptions, check_reading
from vitdfq.models import image_size, output_name
from vitdfq.models.load import with_source
from vitdfq.preparation.prepare import prepared_copy
from vitdfq.quantization import quantize
from vitdfq.quantization.modules import QuantSite, QuantWeighted, named_sites, weighted_modules
from vitdfq.recipe import Recipe
from vitdfq.recipe.teacher import errors_of_section, load_section
from vitdfq.reports import gates
from vitdfq.runtime import distributed
from vitdfq.synthesis import TeacherFacts, check_classes
from vitdfq.synthesis.teacher_filter import for_teacher
from vitdfq.synthesis.without_classes import with_possible_mix

FILES = ["images.safetensors", "config.json", "model.safetensors", "recipe.yaml", "metrics.json", "README.md", "reports/"]


@dataclass(frozen=True)
class Plan:
    """The output of `vitdfq run --dry-run`; the fields are its JSON keys."""

    recipe: str
    model: dict[str, Any]
    images: dict[str, Any]
    prepared: str  # what was rotated and folded, what was not, and why
    sites: list[dict[str, Any]]
    folder: str
    files: list[str]
    push: str | None
    seconds: dict[str, float]
    peak_bytes: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def render(self, all_sites: bool = False) -> Group:
        """Text and a table of the quantized sites: a row for those of equal settings, or for each."""
        rows = [(1, site) for site in self.sites] if all_sites else grouped(self.sites)
        hint = "" if len(rows) == len(self.sites) else f" in {len(rows)} rows; --verbose: a row for each"
        table = Table(title=f"{len(self.sites)} sites{hint}", title_justify="left")
        for column in ("site", "number", "weight", "weight bits", "input bits"):
            table.add_column(column, justify="right" if column == "number" else "left", overflow="fold")
        for number, site in rows:
            inputs = ", ".join("float" if bits is None else str(bits) for bits in site["input_bits"])
            shape = "x".join(map(str, site["shape"] or []))
            table.add_row(site["name"], str(number), shape, str(site["weight_bits"] or ""), inputs)
        costs = (f"{stage} {self.seconds[stage]:.0f} s, {self.peak_bytes[stage] / 1e9:.1f} GB" for stage in self.seconds)
        lines = [
            f"recipe      {self.recipe}",
            f"load        {self.model['name']}: {self.model['parameters'] / 1e6:.1f} M parameters, gives {self.model['gives']}",
            "synthesize  {num_images} images {height}x{width}, method {method}, {steps} steps".format(**self.images),
            f"prepare     {self.prepared}",
            f"evaluate    {self.images['evaluated_on']}",
            f"write       {self.folder}/: {', '.join(self.files)}",
            *([f"publish     {self.push}"] if self.push else []),
            f"estimate    {'; '.join(costs)}; {self.model['packed_bytes'] / 1e6:.1f} MB on disk",
        ]
        return Group(*lines, table)


def plan(recipe: Recipe, out: str | None = None) -> Plan:
    """Plan a recipe's run: build its models, time them, and write nothing.

    Args:
        recipe: a checked recipe.
        out: folder of the run, as given on the command line.

    Raises:
        RecipeError, InputError: what would be refused before the first stage of a run.
    """
    section: dict[str, Any] = recipe.model
    weights_are_local = section.get("pretrained", True) and with_source(section["name"]).startswith(("zoo:", "local-dir:"))
    arguments: dict[str, Any] = section | {"pretrained": weights_are_local}
    model = load_section(arguments).to(distributed.start())
    gates.check_thresholds(model, recipe.min_agreement, recipe.min_cosine)
    check_reading(model, recipe.evaluation)
    prepared = prepared_copy(model, **recipe.prepare)
    student = quantize(prepared, **recipe.quantize)
    synthesis, evaluation = recipe.synthesis, recipe.evaluation
    facts = TeacherFacts.of(model)
    with errors_of_section("synthesize"):
        check_classes(synthesis, facts)
        if synthesis.images is not None:
            check_own_images(synthesis.images)
    method = with_possible_mix(synthesis.resolved(), facts)
    if weights_are_local:
        method = for_teacher(method, model, facts, synthesis.seed)
    height, width = image_size(model)
    sites = [_site(name, site) for name, site in named_sites(student).items()]
    num_evaluated, is_known = evaluated_images(evaluation, model)
    cost = estimate_cost(recipe, model, prepared, student, method, num_evaluated)
    return Plan(
        recipe=recipe.name,
        model={
            "name": recipe.model["name"],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "packed_bytes": _packed_bytes(student),
            "gives": output_name(model),
        },
        images={
            "num_images": synthesis.num_images,
            "height": height,
            "width": width,
            "method": synthesis.method,
            "steps": method.steps,
            "evaluated_on": _evaluated_on(evaluation, model, num_evaluated, is_known),
        },
        prepared=prepared.vitdfq["prepared"],
        sites=sites,
        folder=out or f"runs/{recipe.name}",
        files=FILES,
        push=recipe.push.get("repo"),
        seconds=cost.seconds,
        peak_bytes=cost.peak_bytes,
    )


def _evaluated_on(options: EvaluationOptions, model: nn.Module, count: int, is_known: bool) -> str:
    dataset = options.dataset_of(model)
    if dataset is None:
        return f"nothing ({options.why_none(model)})"
    read_by = options.read_by(model)
    how = "" if read_by == HEAD else f", {'features alone' if read_by is None else f'classes read by {read_by}'}"
    known, unknown = f"{count:,} images of {dataset}", f"all images of {dataset} (not counted; estimated as {count:,})"
    return (known if is_known else unknown) + how


def _site(name: str, site: QuantSite) -> dict[str, Any]:
    weighted = isinstance(site, QuantWeighted)
    return {
        "name": name,
        "shape": list(site.weight.shape) if weighted else None,
        "weight_bits": site.weight_quantizer.bits if weighted else None,
        "input_bits": [quantizer.bits for quantizer in site.operand_quantizers.values()],
    }


def _packed_bytes(student: nn.Module) -> int:
    packed = 0
    for part in weighted_modules(student):
        packed += part.weight.numel() * (part.weight_quantizer.bits or 32) // 8 - part.weight.numel() * 4
    return packed + 4 * sum(parameter.numel() for parameter in student.parameters())
