"""The model card of a checkpoint."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vitdfq.common.files import write_text
from vitdfq.evaluation import AUTO, EvaluationOptions
from vitdfq.hub.card_features import HOW, TITLES, CardFeatures, features_of
from vitdfq.hub.citations import citations
from vitdfq.quantization.options import bits_name, bits_title
from vitdfq.reports.expected import expected_rows
from vitdfq.reports.page import FILE as REPORT
from vitdfq.runtime import distributed
from vitdfq.synthesis.presets import OWN

TEMPLATE = Path(__file__).with_name("card_template.md")


@dataclass(frozen=True)
class Measured:
    """The images that a card's numbers were measured on; `hub_id` is None for a set that is not on the Hub."""

    hub_id: str | None
    name: str
    split: str
    whole: bool
    labeled: bool


KNOWN = {  # name in a recipe -> Hub id, title, split on the Hub (None: the recipe's), images of the whole split
    "imagenet-1k": ("imagenet-1k", "ImageNet-1k", None, 50_000),
    "zoo:fashion-mnist": ("zalando-datasets/fashion_mnist", "Fashion-MNIST", "test", 10_000),
}
LICENSES = ("apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "apple-ascl", "apple-amlr", "gemma", "other")
PICTURES = {  # of a run that has them -> what they show
    "reports/attention.png": "the teacher's attention beside its priors",
    "reports/losses_synthesis.png": "losses of synthesis",
    "reports/losses_training.png": "losses of training",
}
HUB_ID = re.compile(r"\w[\w.-]*/[\w.-]+")


def write_card(folder: Path, metrics: dict[str, Any], recipe: dict[str, Any], config: dict[str, Any], yaml: str) -> None:
    """Write README.md, the model card, from measured results only; in the main process.

    Args:
        folder: of the run.
        metrics: content of metrics.json.
        recipe: `Recipe.to_dict()`.
        config: content of config.json.
        yaml: the recipe as text.
    """
    if not distributed.is_main():
        return
    source = config["vitdfq"]["model"]["pretrained_cfg"]
    features = features_of(metrics, config)
    model = config["vitdfq"]["model"]["name"]
    num_images = metrics["student"]["num_images"]
    measured = None if num_images is None else _measured(recipe["evaluate"], num_images, metrics["student"]["top1"] is not None)
    changeable = model.startswith(("local-dir:", "zoo:"))  # a folder can hold a changed model under its old Hub id
    base_model = None if changeable else source.get("hf_hub_id")
    bits = bits_name(metrics["student"]["weight_bits"], metrics["student"]["activation_bits"])
    own_images = metrics["synthesis"]["method"] == OWN
    data = ModelCardData(
        model_name=metrics["recipe"],
        eval_results=_results(metrics["student"], measured, features) if measured and measured.labeled else None,
        **_license(source.get("license")),
        library_name="vitdfq",
        pipeline_tag=_task(features),
        tags=[
            "timm",
            "vision-transformer",
            "quantization",
            "post-training-quantization",
            *([] if own_images else ["data-free"]),
            bits,
        ],
        **({"metrics": ["accuracy"]} if measured and measured.labeled else {}),
        **({"datasets": [measured.hub_id]} if measured and measured.hub_id else {}),
        **({"base_model": base_model.partition("@")[0], "base_model_relation": "quantized"} if base_model else {}),
    )
    repo = recipe.get("push", {}).get("repo", "owner/name")
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        metrics=metrics,
        measured=measured,
        prepared=config["vitdfq"].get("prepared"),
        recipe=recipe,
        recipe_yaml=yaml,
        bits=bits_title(bits, dynamic=metrics["student"].get("dynamic", False), mixed=metrics["student"].get("mixed")),
        repo=repo,
        features=features,
        output=features.output if features else "logits",
        outputs=features.describe() if features else "",
        how=HOW[features.read_by] if features else "",
        columns=features.columns if features else (),
        citations=citations(metrics, recipe, config),
        expected=expected_rows(metrics),
        own_images=own_images,
        pictures={title: path for path, title in PICTURES.items() if (folder / path).is_file()},
        page=REPORT,
        number=lambda value, digits: "" if value is None else f"{value:.{digits}f}",
    )
    write_text(folder / "README.md", str(card))


def _measured(evaluate: dict[str, Any], num_images: int, labeled: bool) -> Measured:
    options = EvaluationOptions(**evaluate)
    dataset, split = "imagenet-1k" if options.dataset == AUTO else str(options.dataset), options.split
    if dataset in KNOWN:
        hub_id, name, only_split, all_images = KNOWN[dataset]
        return Measured(hub_id, name, only_split or split, num_images == all_images, labeled)
    whole = options.num_images is None
    if HUB_ID.fullmatch(dataset) and not Path(dataset).exists():
        return Measured(dataset, dataset, split, whole, labeled)
    kind = "labeled images" if labeled else "images without labels"
    return Measured(None, f"{Path(dataset).name}, a folder of {kind}", split, whole, labeled)


def _license(name: str | None) -> dict[str, str]:
    """The license as the Hub's list has it; another one is "other", with its name."""
    return {"license": name} if name in LICENSES else {"license": "other"} | ({"license_name": name} if name else {})


def _task(features: CardFeatures | None) -> str:
    """The Hub's name of what the model does."""
    return "image-feature-extraction" if features else "image-classification"


def _results(student: dict[str, Any], measured: Measured, features: CardFeatures | None) -> list[EvalResult]:
    """Return top-1 and top-5 for the Hub's list; name and split tell a part of a set from the whole."""
    num_images = student["num_images"]
    reader = TITLES[features.read_by] if features and features.read_by else ""
    return [
        EvalResult(
            task_type=_task(features),
            dataset_type=measured.hub_id or "custom",
            dataset_name=measured.name if measured.whole else f"{measured.name} (only {num_images} images)",
            dataset_split=measured.split if measured.whole else f"{measured.split}[:{num_images}]",
            dataset_args={"num_images": num_images},
            metric_type="accuracy",
            metric_name=f"{reader}{name}",
            metric_value=round(student[key], 2),
        )
        for name, key in (("Top-1", "top1"), ("Top-5", "top5"))
    ]
