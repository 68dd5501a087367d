"""Scores computed by hand, with a model that reads its prediction from the gray value of an image."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from torch import nn

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.data import batches, load_labeled
from vitdfq.evaluation import EvaluationOptions, Predictions, evaluate, predict, score
from vitdfq.models import load_teacher
from vitdfq.quantization import quantize
from vitdfq.runtime import progress
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun

NUM_CLASSES = 7
PREDICTED, TRUTH = [0, 1, 2, 3, 6], [0, 1, 2, 5, 1]  # the predicted class is the pixel value; 3 of 5 are right


class Reader(nn.Module):
    """Logits fall with the distance of a class from the gray value of the image: class c first, c ± 1 next, ..."""

    num_classes = NUM_CLASSES

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 4, 4), "mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}
        self.shift = shift
        self.sizes = []
        self.eval()

    def forward(self, images):
        self.sizes.append(len(images))
        assert torch.is_inference_mode_enabled() and images.shape[1:] == (3, 4, 4)
        predicted = (images.mean((1, 2, 3)) * 255).round() + self.shift  # (B,)
        classes = torch.arange(NUM_CLASSES)
        return -(classes - predicted[:, None]).abs() - 0.1 * (classes > predicted[:, None])


@pytest.fixture
def folder(tmp_path):
    pixels = [PILImage.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)) for value in PREDICTED]
    features = Features({"image": Image(), "label": ClassLabel(num_classes=NUM_CLASSES)})
    Dataset.from_dict({"image": pixels, "label": TRUTH}, features=features).to_parquet(tmp_path / "x.parquet")
    return str(tmp_path)


def test_score_by_hand():
    logits = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0], [5.0, 0.0, 0.0]])
    teacher = logits.clone()
    teacher[3] = torch.tensor([0.0, 4.0, 0.0])  # the only disagreement; the difference is (5, -4, 0)
    row = score(Predictions(logits, torch.tensor([0, 1, 0, 1])), teacher)
    signal = (9 + 1) + (4 + 1) + (1 + 4) + 16
    teacher_total, student_total = 2 + math.exp(4), 2 + math.exp(5)  # sums of the exponentials of the last logits
    kl = (4 * math.exp(4) - 5) / teacher_total - math.log(teacher_total) + math.log(student_total)
    assert row == {
        "top1": 50.0,
        "top5": 100.0,  # three classes only
        "num_images": 4,
        "agreement": 75.0,
        "kl": pytest.approx(kl / 4, abs=1e-5),
        "logits_sqnr_db": round(10 * math.log10(signal / 41), 4),
    }


def test_score_of_equal_logits_has_no_sqnr():
    logits = torch.eye(3)
    row = score(Predictions(logits, torch.arange(3)), logits)
    assert row["agreement"] == 100.0 and row["logits_sqnr_db"] is None


def test_sqnr_is_summed_in_double_precision():
    teacher = torch.full((10, 10), 1e25)  # its square is not a float32
    row = score(Predictions(teacher * 1.5, torch.zeros(10, dtype=torch.int64)), teacher)
    assert row["logits_sqnr_db"] == pytest.approx(20 * math.log10(1 / 0.5), abs=1e-4)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64])
def test_evaluate_by_hand(folder, batch_size):
    row = evaluate(Reader(), dataset=folder, batch_size=batch_size)
    # the fourth image ranks 3, 2, 4, 1, 5: its label is the fifth; the last ranks 6, 5, 4, 3, 2, 1: its label is the sixth
    assert row == {"top1": 60.0, "top5": 80.0, "num_images": 5}
    assert evaluate(Reader(), dataset=Path(folder)) == row


def test_teacher_is_evaluated_in_the_same_pass(folder):
    teacher = Reader(shift=-1)  # predicts another class, except for class 0, as there is none below
    row = evaluate(Reader(), dataset=folder, teacher=teacher, batch_size=2)
    assert row["agreement"] == 20.0 and row["top1"] == 60.0
    assert teacher.sizes == [2, 2, 1]
    expected = predict(teacher, dataset=folder).logits
    assert row == score(predict(Reader(), dataset=folder), expected)


def test_predictions_are_in_the_order_of_the_set(folder):
    predictions = predict(Reader(), dataset=folder, batch_size=2, num_workers=2)
    assert predictions.labels.tolist() == TRUTH and predictions.logits.argmax(1).tolist() == PREDICTED
    assert predictions.logits.dtype == torch.float32 and predictions.logits.shape == (5, NUM_CLASSES)
    assert torch.equal(predict(Reader(), dataset=folder, num_images=3).logits, predictions.logits[:3])


@pytest.mark.integration
def test_zoo_model_on_the_zoo_set():
    from vitdfq.models import load_teacher

    row = evaluate(load_teacher("zoo:vit"), dataset="zoo:fashion-mnist", num_images=256)
    assert row["num_images"] == 256 and row["top1"] > 80 and row["top5"] > 97


def test_too_few_images_are_an_error(folder, monkeypatch):
    with pytest.raises(RecipeError, match=r"num_images is 6, but .* has only 5"):
        evaluate(Reader(), dataset=folder, num_images=6)
    monkeypatch.setattr(
        "vitdfq.evaluation.passes.batches", lambda *args, **kwargs: (pair for pair in list(batches(*args, **kwargs))[:-1])
    )
    with pytest.raises(InputError, match="fewer images than the 5 expected"):
        evaluate(Reader(), dataset=folder, batch_size=2)


def test_a_damaged_shard_alone_is_computed_again(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("vitdfq.evaluation.passes.BATCHES_IN_SHARD", 1)
    run = SharedRun(PartialResults(tmp_path / "parts"))
    before = predict(Reader(), dataset=folder, batch_size=2, run=run)
    damaged = tmp_path / "parts/rows_2_4.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"damaged?")
    model = Reader()
    again = predict(model, dataset=folder, batch_size=2, run=run)
    assert again.logits.equal(before.logits) and again.labels.equal(before.labels)
    assert model.sizes == [2]  # the other shards are read
    assert caplog.text.count("rows_2_4.safetensors: changed since it was written; computed again") == 1


def test_a_set_of_unknown_length_is_read_to_its_end(folder, monkeypatch):
    from dataclasses import replace

    def without_length(*args, **keywords):
        labeled = load_labeled(*args, **keywords)
        return replace(labeled, source=replace(labeled.source, num_rows=None))

    expected = evaluate(Reader(), dataset=folder)
    monkeypatch.setattr("vitdfq.evaluation.collect.load_labeled", without_length)
    assert evaluate(Reader(), dataset=folder, batch_size=2) == expected
    assert evaluate(Reader(), dataset=folder, num_images=4)["num_images"] == 4
    monkeypatch.setattr("vitdfq.evaluation.passes.batches", lambda *args, **keywords: (pair for pair in ()))
    with pytest.raises(InputError, match="split 'validation' is empty"):
        evaluate(Reader(), dataset=folder)


def test_a_stream_of_the_hub_that_does_not_state_its_rows(folder, monkeypatch):
    import datasets

    stream = datasets.load_dataset("parquet", data_files={"test": f"{folder}/x.parquet"}, split="test", streaming=True)
    stream = stream.rename_columns({"image": "img", "label": "labels"})
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("vitdfq.common.hub_connection.reachable", lambda *repository: True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **keywords: stream)
    assert evaluate(Reader(), dataset="owner/name", split="test") == {"top1": 60.0, "top5": 80.0, "num_images": 5}


def test_without_labels_a_model_is_compared_with_its_teacher(folder, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, value in enumerate(PREDICTED):
        PILImage.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)).save(pictures / f"{number}.png")
    labeled = evaluate(Reader(), dataset=folder, teacher=Reader(shift=-1))
    unlabeled = evaluate(Reader(), dataset=str(pictures), teacher=Reader(shift=-1))
    assert unlabeled == labeled | {"top1": None, "top5": None}
    assert evaluate(Reader(), dataset=folder, teacher=Reader(shift=-1), label_column="none") == unlabeled
    with pytest.raises(RecipeError, match="no labels: without them a model can only be compared with its teacher"):
        evaluate(Reader(), dataset=str(pictures))
    assert predict(Reader(), dataset=str(pictures)).labels.tolist() == [-1] * 5


def test_images_without_labels_show_no_top1(folder, monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    predict(Reader(), dataset=folder, label_column="none", run=SharedRun())
    assert "evaluate: 5/5" in caplog.text and "top1" not in caplog.text


def test_imagenet_is_the_default_only_for_its_number_of_classes():
    model = Reader()
    with pytest.raises(RecipeError, match="no evaluation data: a model of 7 classes has no usual one"):
        evaluate(model)
    with pytest.raises(RecipeError, match="no evaluation data: evaluation is switched off"):
        evaluate(model, dataset=None)
    assert EvaluationOptions(dataset="none").dataset_of(model) is None
    model.num_classes = 1000
    assert EvaluationOptions().dataset_of(model) == "imagenet-1k"


def test_parts_of_splits_are_refused(folder):
    for split in ("validation[:10%]", "train[:100]", "train+test"):
        with pytest.raises(ValueError, match="parts of splits are not read"):
            evaluate(Reader(), dataset=folder, split=split)


def test_broken_models_are_refused(folder):
    with pytest.raises(ValueError, match="training mode"):
        evaluate(Reader().train(), dataset=folder)
    broken = Reader(shift=math.nan)
    with pytest.raises(ValueError, match="not finite for 5 of 5 images"):
        evaluate(broken, dataset=folder)
    with pytest.raises(ValueError, match="no num_classes"):
        evaluate(nn.Linear(1, 1).eval(), dataset=folder)


@pytest.mark.parametrize("numbers", [{"num_images": 0}, {"batch_size": 0}, {"num_workers": -1}])
def test_numbers_out_of_range_are_refused(numbers, folder):
    with pytest.raises(ValueError, match="it must be at least"):
        EvaluationOptions(**numbers)
    with pytest.raises(ValueError, match="it must be at least"):
        evaluate(Reader(), dataset=folder, **numbers)


def test_progress_shows_running_top1(folder, monkeypatch, caplog):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    evaluate(Reader(), dataset=folder, batch_size=3, run=SharedRun())
    assert "evaluate: 3/5" in caplog.text and "top1 60" in caplog.text


def test_from_python_nothing_is_printed(folder, capsys):
    evaluate(Reader(), dataset=folder, batch_size=3)
    assert capsys.readouterr() == ("", "")


@pytest.mark.integration
def test_a_model_in_a_wrapper_runs_in_it_and_half_precision_is_named():
    teacher = load_teacher("zoo:vit")
    options = {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 4}
    expected = evaluate(teacher, teacher=teacher, **options)
    for wrapper in (torch.compile(teacher, backend="eager"), torch.nn.DataParallel(teacher)):
        assert evaluate(wrapper, teacher=wrapper, **options) == expected
    with pytest.raises(ValueError, match=r"evaluate works in float32; .* call model.float\(\) first"):
        evaluate(teacher.half(), **options)
    with pytest.raises(ValueError, match="this student is not calibrated"):
        evaluate(quantize(load_teacher("zoo:vit")), **options)
