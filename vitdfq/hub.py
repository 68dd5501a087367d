"""The Hugging Face Hub: a checkpoint's model card, and fetching a repository."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from vitdfq.errors import AccessError, InputError
from vitdfq.files import write_text

TEMPLATE = Path(__file__).with_name("card_template.md")
CHECKPOINT_FILES = ["config.json", "model.safetensors", "recipe.yaml", "metrics.json", "README.md", "reports/*"]
DATASETS = {  # recipe's name -> (Hub id, name to show); others are shown as they are
    "imagenet-1k": ("imagenet-1k", "ImageNet-1k"),
    "zoo:fashion-mnist": ("zalando-datasets/fashion_mnist", "Fashion-MNIST"),
}


def download(repo: str) -> Path:
    """Fetch a checkpoint repository as one snapshot (fetched file by file, an offline cache can be incomplete).

    Raises:
        InputError: `repo` is neither a folder nor a repository id.
        AccessError: it could not be reached.
    """
    try:
        return Path(snapshot_download(repo, allow_patterns=CHECKPOINT_FILES))
    except HFValidationError as error:
        raise InputError(f"{repo}: neither a folder nor a Hub repository id") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise AccessError(f"{repo}: no such folder here, and the Hub repository could not be reached") from error


def write_card(folder: Path, metrics: dict[str, Any], recipe: dict[str, Any], config: dict[str, Any], yaml: str) -> None:
    """Write README.md, the model card, from measured results only."""
    source = config["vitdfq"]["model"]["pretrained_cfg"]  # timm's own copy does not say where the weights came from
    dataset, split = recipe["evaluate"].get("dataset", "imagenet-1k"), recipe["evaluate"].get("split", "validation")
    dataset_id, dataset_name = DATASETS.get(dataset, (dataset, dataset))
    num_images = metrics["student"]["num_images"]
    if recipe["evaluate"].get("num_images"):
        dataset_name += f" (only {num_images} images)"
    base_model = source.get("hf_hub_id")
    bits = f"w{metrics['student']['weight_bits']}a{metrics['student']['activation_bits']}"
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type=dataset_id,
            dataset_name=dataset_name,
            dataset_split=split,
            metric_type="accuracy",
            metric_name=name,
            metric_value=round(metrics["student"][key], 2),
        )
        for name, key in (("Top-1", "top1"), ("Top-5", "top5"))
    ]
    data = ModelCardData(
        model_name=metrics["recipe"],
        eval_results=results,
        license=source.get("license", "other"),
        library_name="vitdfq",
        pipeline_tag="image-classification",
        tags=["timm", "vision-transformer", "quantization", "post-training-quantization", "data-free", bits],
        datasets=[dataset_id],
        metrics=["accuracy"],
        **({"base_model": base_model, "base_model_relation": "quantized"} if base_model else {}),
    )
    card = ModelCard.from_template(
        data, template_path=str(TEMPLATE), metrics=metrics, recipe_yaml=yaml, bits=bits.upper(), dataset=dataset_name
    )
    write_text(folder / "README.md", str(card))
