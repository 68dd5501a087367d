"""The model card states the measured results, on which images, and no more."""

import copy

import pytest
from huggingface_hub import ModelCard

from vitdfq.hub.model_card import write_card

METRICS = {
    "recipe": "small",
    "vitdfq": "0.1.0",
    "seed": 3,
    "device": "cpu",
    "teacher": {"name": "vit_tiny.in1k", "top1": 75.456, "top5": 93.1, "num_images": 50_000},
    "student": {"top1": 71.234, "top5": 90.5, "num_images": 50_000, "agreement": 88, "kl": 0.01234}
    | {"weight_bits": 4, "activation_bits": 8},
    "synthesis": {"method": "sardfq", "num_images": 32, "steps": 100},
    "baselines": {"noise": {"top1": 60.0, "top5": 80.0, "agreement": 70.0, "kl": 0.5}},
    "size": {"float_bytes": 8_000_000, "packed_bytes": 1_200_000},
    "synthetic": {"dead_leaves": {"num_images": 32, "agreement": 96.875, "kl": 0.1, "logits_sqnr_db": 21.04}},
}
RECIPE = {"model": {"name": "vit_tiny.in1k"}, "evaluate": {}, "reference_top1": 75.46}
CONFIG = {"vitdfq": {"model": {"pretrained_cfg": {"hf_hub_id": "timm/vit_tiny.in1k", "license": "mit"}}}}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "W4A8"),
        ({"dynamic": False, "mixed": None}, "W4A8"),
        ({"dynamic": True}, "W4A8 dynamic"),
        ({"mixed": 3.98}, "W3.98A8 mixed"),
    ],
)
def test_a_dynamic_or_mixed_student_is_named_so(changes, name, tmp_path):
    metrics, config = copy.deepcopy(METRICS), copy.deepcopy(CONFIG)
    metrics["student"] |= changes
    config["vitdfq"]["model"]["name"] = "vit_tiny.in1k"
    write_card(tmp_path, metrics, RECIPE, config, "name: small\n")
    text = ModelCard.load(tmp_path / "README.md").text
    assert f"quantized to {name} by" in text and f"| **this model, {name}** |" in text
    assert ("range of each token is determined" in text) == ("dynamic" in name)


@pytest.fixture
def card(tmp_path):
    def write(
        evaluate=None, num_images: int = 50_000, model: str | None = None, hub_id: str | None = "timm/vit_tiny.in1k"
    ) -> ModelCard:
        metrics, recipe, config = map(copy.deepcopy, (METRICS, RECIPE, CONFIG))
        metrics["student"]["num_images"] = num_images
        recipe["evaluate"] = evaluate or {}
        recipe["model"]["name"] = model or recipe["model"]["name"]
        config["vitdfq"]["model"]["name"] = recipe["model"]["name"]
        config["vitdfq"]["model"]["pretrained_cfg"]["hf_hub_id"] = hub_id
        write_card(tmp_path, metrics, recipe, config, "name: small\n")
        return ModelCard.load(tmp_path / "README.md")

    return write


def test_header(card):
    data = card().data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "vitdfq", "image-classification")
    assert (data.base_model, data.base_model_relation, data.datasets) == ("timm/vit_tiny.in1k", "quantized", ["imagenet-1k"])
    assert {"timm", "data-free", "w4a8"} <= set(data.tags)
    results = {result.metric_name: result for result in data.eval_results}
    assert (results["Top-1"].metric_value, results["Top-5"].metric_value) == (71.23, 90.5)
    assert {result.dataset_args["num_images"] for result in results.values()} == {50_000}


def test_a_part_of_a_set_is_not_reported_as_the_whole(card):
    whole, part = card(), card({"num_images": 1000}, num_images=1000)
    first, second = whole.data.eval_results[0], part.data.eval_results[0]
    assert (first.dataset_name, first.dataset_split) == ("ImageNet-1k", "validation")
    assert (second.dataset_name, second.dataset_split) == ("ImageNet-1k (only 1000 images)", "validation[:1000]")
    assert "all 50,000 images of ImageNet-1k" in whole.text and "part of the set" not in whole.text
    assert "the first 1,000 images of ImageNet-1k" in part.text and "part of the set" in part.text


@pytest.mark.parametrize(
    ("evaluate", "num_images", "dataset", "name", "split"),
    [
        ({"dataset": "zoo:fashion-mnist"}, 10_000, "zalando-datasets/fashion_mnist", "Fashion-MNIST", "test"),
        ({"dataset": "someone/birds", "split": "test"}, 300, "someone/birds", "someone/birds", "test"),
        (
            {"dataset": "someone/birds", "num_images": 300},
            300,
            "someone/birds",
            "someone/birds (only 300 images)",
            "validation[:300]",
        ),
        ({"dataset": "/home/me/birds"}, 300, None, "birds, a folder of labeled images", "validation"),
    ],
)
def test_other_sets(card, evaluate, num_images, dataset, name, split):
    data = card(evaluate, num_images).data
    assert data.eval_results[0].dataset_name == name and data.eval_results[0].dataset_split == split
    assert (data.datasets or [None])[0] == dataset and "/home" not in str(data)


@pytest.mark.parametrize(
    ("model", "hub_id", "base_model"),
    [
        ("hf-hub:someone/vit@v2", "someone/vit@v2", "someone/vit"),
        ("local-dir:/home/me/vit", "timm/vit_tiny.in1k", None),  # the folder may have been trained further
        ("zoo:vit", None, None),
    ],
)
def test_the_base_model_is_named_only_if_its_weights_were_used(card, model, hub_id, base_model):
    data = card(model=model, hub_id=hub_id).data
    assert data.base_model == base_model and (data.get("base_model_relation") == "quantized") == (base_model is not None)


def test_text(card):
    text = card().text
    for part in (
        "![synthetic calibration images](reports/synthetic_grid.png)",
        'vitdfq.load("owner/name")',
        "name: small",
        "| model | agreement with teacher % | KL | top-1 % | top-5 % |",
        "| teacher, float32 (published: 75.46) | | | 75.46 | 93.10 |",
        "| **this model, W4A8** | **88.00** | **0.01234** | 71.23 | 90.50 |",
        "| the same, calibrated on noise | 70.00 | 0.50000 | 60.00 | 80.00 |",
        "used for evaluation only",
        "packed integer codes",
        "simulates",
        "vitdfq.to_integer",
        "1.20 MB, 8.00 MB in float32",
    ):
        assert part in text


def test_a_card_without_labels_or_without_evaluation(card, tmp_path, monkeypatch):
    monkeypatch.setitem(METRICS, "teacher", METRICS["teacher"] | {"top1": None, "top5": None})
    scores = {"top1": None, "top5": None, "agreement": 88.0, "kl": 0.0123}
    monkeypatch.setitem(METRICS, "student", METRICS["student"] | scores)
    monkeypatch.setitem(METRICS, "baselines", {"noise": scores | {"agreement": 70.0}})
    unlabeled = card({"dataset": "/home/me/pictures"}, num_images=300)
    assert unlabeled.data.get("eval_results") is None and unlabeled.data.get("metrics") is None
    assert "pictures, a folder of images without labels" in unlabeled.text and "The images have no labels" in unlabeled.text
    assert "| **this model, W4A8** | **88.00** | 0.01230 |\n| the same, calibrated on noise | 70.00 | 0.01230 |" in unlabeled.text
    nothing = card(num_images=None)
    assert (
        "Not evaluated: no images" in nothing.text and "top-1" not in nothing.text and "used for evaluation" not in nothing.text
    )
    assert nothing.data.get("datasets") is None


def test_the_results_are_one_table(card):
    lines = card().text.partition("Checked without data")[0].splitlines()
    table = [index for index, line in enumerate(lines) if line.startswith("|")]
    assert table == list(range(table[0], table[0] + 5)) and lines[table[0] - 1] == lines[table[-1] + 1] == ""


def test_the_error_on_unseen_synthetic_images_is_shown(card):
    text = card().content
    assert "| 32 dead_leaves | 96.9 | 21.0 |" in text and "reports/unit_sqnr.png" in text


def test_it_says_what_was_rotated_and_what_was_not(card, monkeypatch):
    assert "another of the same function" not in card().text  # students of earlier versions do not know it
    monkeypatch.setitem(CONFIG["vitdfq"], "prepared", "rotated: heads; not rotated: MLPs, because there are none")
    assert "of the same function: rotated: heads; not rotated: MLPs, because there are none.\n\n## Methods" in card().text


FEATURE_SCORES = {
    "top1": None,
    "top5": None,
    "agreement": None,
    "cosine": 0.98765,
    "relative_error": 0.1234,
    "features_sqnr_db": 18.2,
}
SYNTHETIC = {"noise": {"num_images": 32, "cosine": 0.99, "relative_error": 0.1, "features_sqnr_db": None}}


@pytest.fixture
def of_features(monkeypatch):
    """The card's metrics and config are of a model that gives features, whose classes `read_by` read."""

    def change(num_classes: int = 0, read_by: str | None = None, **scores: float) -> None:
        row = FEATURE_SCORES | scores | {"read_by": read_by}
        monkeypatch.setitem(METRICS, "student", METRICS["student"] | row)
        monkeypatch.setitem(METRICS, "baselines", {"noise": row | {"cosine": 0.9}})
        monkeypatch.setitem(METRICS, "teacher", METRICS["teacher"] | {"top1": row["top1"] and 80.0, "top5": row["top5"] and 95.0})
        monkeypatch.setitem(METRICS, "synthetic", SYNTHETIC)
        monkeypatch.setitem(METRICS, "read_by", read_by)
        monkeypatch.setitem(CONFIG["vitdfq"]["model"], "num_classes", num_classes)

    return change


def test_a_card_of_features(card, of_features):
    of_features()
    page = card({"num_images": 1000}, num_images=1000)
    assert page.data.pipeline_tag == "image-feature-extraction" and page.data.get("eval_results") is None
    assert "| model | cosine | relative error | SQNR dB |\n|-|-:|-:|-:|\n| **this model, W4A8** | 0.9877 |" in page.text
    assert "| the same, calibrated on noise | 0.9000 | 0.1234 | 18.20 |" in page.text
    assert "| 32 noise | 0.9900 |  |" in page.text and "features are one vector" in page.text
    assert "top-1" not in page.text and "agree" not in page.text


@pytest.mark.parametrize(("read_by", "name"), [("knn", "k-NN"), ("linear_head", "Linear"), ("text_embeddings", "Zero-shot")])
def test_a_card_says_what_read_the_classes(card, of_features, read_by, name):
    of_features(512, read_by, top1=70.0, top5=90.0, agreement=91.0)
    page = card()
    results = {result.metric_name: result for result in page.data.eval_results}
    assert set(results) == {f"{name} Top-1", f"{name} Top-5"} and results[f"{name} Top-1"].task_type == "image-feature-extraction"
    assert "| teacher, float32 |  |  |  | 80.00 | 95.00 |  |" in page.text
    assert "| **this model, W4A8** | 0.9877 | 0.1234 | 18.20 | 70.00 | 90.00 | 91.00 |" in page.text
    assert "student(images) gives embedding" in page.text and "(batch, 512)" in page.text


def test_a_license_that_the_hub_does_not_know_is_named(card, monkeypatch):
    monkeypatch.setitem(CONFIG["vitdfq"]["model"]["pretrained_cfg"], "license", "dinov3-license")
    assert (card().data.license, card().data.to_dict()["license_name"]) == ("other", "dinov3-license")
    monkeypatch.setitem(CONFIG["vitdfq"]["model"]["pretrained_cfg"], "license", None)
    assert card().data.license == "other" and "license_name" not in card().data.to_dict()


def test_the_plots_of_the_report_are_shown_where_there_are_some(tmp_path, card):
    assert "losses" not in card().text and "The file `reports/index.html` shows all of it on one page." in card().text
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports/losses_training.png").touch()
    text = card().text
    assert "![losses of training](reports/losses_training.png)" in text and "attention.png" not in text
