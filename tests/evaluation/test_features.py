"""Features: scores by hand of a model whose features are angles, tokens, and what is refused."""

import math

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from safetensors.torch import save_file
from tiny import FEATURES, make_tiny
from torch import nn

from vitdfq.common.errors import InputError, RecipeError
from vitdfq.evaluation import EvaluationOptions, FeaturePredictions, evaluate, predict, predictions_of, summarize
from vitdfq.evaluation import passes as passes_of
from vitdfq.evaluation.features import compare, gives_vectors, pooled, tokens_of
from vitdfq.models import image_size
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun

VALIDATION = [(2, 0), (4, 0), (42, 1), (80, 2)]  # (gray value, label): features of 0 to 90 degrees, a degree a value
TRAIN = [(0, 0), (3, 0), (40, 1), (44, 1), (88, 0), (90, 0)]  # no neighbor is of class 2
NONE_OF_CLASSES = {"agreement": None, "kl": None, "logits_sqnr_db": None}


class Angles(nn.Module):
    """Features (cos a, sin a), a the gray value in degrees plus a shift; with `tokens` two of them, the second negated."""

    num_classes, num_features, head_hidden_size = 0, 2, 2

    def __init__(self, shift: float = 0.0, tokens: bool = False) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 4, 4), "mean": (0, 0, 0), "std": (1, 1, 1), "crop_pct": 1.0}
        self.shift, self.tokens, self.sizes = shift, tokens, []
        self.unused = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.eval()

    def forward(self, images):
        self.sizes.append(len(images))
        angle = ((images.mean((1, 2, 3)) * 255).round() + self.shift).deg2rad()
        vectors = torch.stack([angle.cos(), angle.sin()], dim=1)
        return torch.stack([vectors, -vectors], dim=1) if self.tokens else vectors


@pytest.fixture
def folder(tmp_path) -> str:
    root = tmp_path / "set"
    root.mkdir()
    columns = Features({"image": Image(), "label": ClassLabel(names=["ant", "bee", "cat"])})
    for split, rows in (("validation", VALIDATION), ("train", TRAIN)):
        pixels = [PILImage.fromarray(np.full((4, 4, 3), value, dtype=np.uint8)) for value, _ in rows]
        content = {"image": pixels, "label": [label for _, label in rows]}
        Dataset.from_dict(content, features=columns).to_parquet(root / f"{split}.parquet")
    return str(root)


def written(path, **tensors) -> str:
    save_file({name: torch.tensor(value) for name, value in tensors.items()}, path)
    return str(path)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_distance_to_the_teacher_by_hand(folder, tokens, batch_size):
    row = evaluate(Angles(6, tokens), dataset=folder, teacher=Angles(tokens=tokens), batch_size=batch_size)
    assert row == {"top1": None, "top5": None, "num_images": 4, **NONE_OF_CLASSES, "read_by": None} | {
        "cosine": pytest.approx(math.cos(math.radians(6)), abs=2e-6),
        "relative_error": pytest.approx(2 * math.sin(math.radians(3)), abs=2e-6),
        "features_sqnr_db": pytest.approx(-20 * math.log10(2 * math.sin(math.radians(3))), abs=1e-3),
    }
    same = evaluate(Angles(), dataset=folder, teacher=Angles())
    assert (same["cosine"], same["relative_error"], same["features_sqnr_db"]) == (1.0, 0.0, None)


def test_cosine_is_a_mean_over_tokens_and_then_over_images_and_the_error_is_over_all():
    target = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, 4.0]]])
    outputs = torch.tensor([[[0.0, 1.0], [0.0, 2.0]], [[3.0, 0.0], [0.0, -4.0]]])
    assert compare(outputs, target).tolist() == [[0.5, 2.0, 5.0], [0.0, 64.0, 25.0]]
    with pytest.raises(
        ValueError, match="the model gives 2 x 2 numbers an image, its teacher 1 x 2 numbers an image: not the same features"
    ):
        compare(outputs, target[:, :1])


def test_knn_by_hand(folder):
    options = {"dataset": folder, "knn": {"k": 3}}
    # the nearest three of 2, 4, 42, 80 degrees are (3, 0, 40), (3, 0, 40), (40, 44, 3), (88, 90, 44); class 2 has no neighbor
    assert evaluate(Angles(), **options) == {"top1": 75.0, "top5": 75.0, "num_images": 4, "read_by": "knn"}
    row = evaluate(Angles(30), teacher=Angles(), **options)  # a rotation: its own bank rotates with it
    assert (row["top1"], row["agreement"], row["kl"], row["logits_sqnr_db"]) == (75.0, 100.0, None, None)
    assert row["cosine"] == pytest.approx(math.cos(math.radians(30)), abs=2e-6) and row["read_by"] == "knn"
    two = evaluate(Angles(), dataset=folder, knn={"k": 2, "num_images": 4}, num_images=3)
    assert two == {"top1": 100.0, "top5": 100.0, "num_images": 3, "read_by": "knn"}


def test_knn_of_images_without_labels_tells_agreement(folder):
    row = evaluate(Angles(1), dataset=folder, teacher=Angles(), knn={"k": 1}, num_images=2)
    assert row["top1"] == 100.0
    with pytest.raises(RecipeError, match="has no labels, so its images cannot vote"):
        evaluate(Angles(1), dataset=folder, teacher=Angles(), knn={}, label_column="none")


def test_knn_says_which_images_it_cannot_be_right_about(folder, caplog):
    evaluate(Angles(), dataset=folder, knn={"k": 1})
    assert "1 of 4 images have a label that no neighbor has" in caplog.text


def test_a_linear_head_and_text_embeddings_by_hand(folder, tmp_path):
    head = written(tmp_path / "head.safetensors", weight=[[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]], bias=[2.0, 0.0, 0.0])
    row = evaluate(Angles(), dataset=folder, teacher=Angles(), linear_head=head)
    # at 2, 4, 42, 80 degrees the logits are highest of class 0 (3.00 > 2.07), 0, 2 (2.74 < 2.82), 2 (2.17 < 2.32)
    assert (row["top1"], row["top5"], row["agreement"], row["kl"], row["read_by"]) == (75.0, 100.0, 100.0, 0.0, "linear_head")
    texts = written(tmp_path / "texts.safetensors", embeddings=[[5.0, 0.0], [1.0, 1.0], [0.0, 0.1]])
    row = evaluate(Angles(), dataset=folder, text_embeddings=texts)
    assert row == {"top1": 100.0, "top5": 100.0, "num_images": 4, "read_by": "text_embeddings"}
    for factor, scale in ((100.0, {}), (12.5, {"logit_scale": 12.5})):  # 42 degrees and the teacher's 2; texts at 0, 90 and 180
        file = written(tmp_path / "three.safetensors", x=[[2.0, 0.0], [0.0, 1.0], [-0.5, 0.0]], **scale)
        row = evaluate(Angles(40), dataset=folder, teacher=Angles(), text_embeddings=file, num_images=1)
        student, teacher = (
            (factor * torch.stack([angle.cos(), angle.sin(), -angle.cos()])).log_softmax(0)
            for angle in torch.tensor([42.0, 2.0]).deg2rad()
        )
        assert row["kl"] == pytest.approx((teacher.exp() * (teacher - student)).sum().item(), abs=1e-4)


@pytest.mark.parametrize(
    ("option", "tensors", "message"),
    [
        ("linear_head", {"weight": [[1.0, 0.0, 0.0]] * 3}, r"weight is \(3, 3\); expected \(classes, 2\)"),
        ("linear_head", {"kernel": [[1.0, 0.0]] * 3}, "has the tensors weight and bias; found: kernel"),
        ("linear_head", {"weight": [[1.0, 0.0]] * 3, "bias": [0.0]}, r"bias is \(1,\); expected \(3,\)"),
        ("linear_head", {"weight": [[1.0, math.nan]] * 3}, "weight holds NaN or infinite values"),
        ("linear_head", {"weight": [[1, 0]] * 3}, "weight holds torch.int64; expected floating point"),
        ("text_embeddings", {"a": [[1.0, 0.0]] * 3, "b": [[1.0, 0.0]]}, "are one tensor .* found: a, b"),
        ("text_embeddings", {"a": [[1.0, 0.0], [0.0, 0.0]]}, "row 1 of a is zero"),
        ("text_embeddings", {"a": [[1.0, 0.0]] * 3, "logit_scale": 4.6}, "logit_scale is 4.6; .* not its logarithm"),
    ],
)
def test_files_that_cannot_be_are_refused_in_one_line(option, tensors, message, folder, tmp_path):
    path = written(tmp_path / "x.safetensors", **tensors)
    with pytest.raises(InputError, match=f"x.safetensors: .*{message}") as caught:
        evaluate(Angles(), dataset=folder, **{option: path})
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="nowhere: no such file"):
        evaluate(Angles(), dataset=folder, **{option: "nowhere"})


def test_what_cannot_be_measured_is_refused(folder, tmp_path):
    with pytest.raises(RecipeError, match=r"can only be compared with its teacher, unless evaluate.knn, evaluate.linear_head or"):
        evaluate(Angles(), dataset=folder)
    for knn in ({"split": "validation"}, {"split": "val"}, {"split": "test"}):
        with pytest.raises(RecipeError, match=rf"no split '{knn['split']}' beside 'validation'"):
            evaluate(Angles(), dataset=folder, knn=knn)
    with pytest.raises(RecipeError, match=r"evaluate.knn.k is 7, but there are only 6 images"):
        evaluate(Angles(), dataset=folder, knn={"k": 7})
    with pytest.raises(RecipeError, match=r"evaluate.knn.num_images is 9, but .* has only 6"):
        evaluate(Angles(), dataset=folder, knn={"num_images": 9})
    with pytest.raises(ValueError, match="knn and linear_head each read classes from features; give one of them"):
        EvaluationOptions(knn={}, linear_head="x")
    with pytest.raises(ValueError, match=r"knn: unknown option 'neighbours'; choices: dataset, split, k, num_images"):
        EvaluationOptions(knn={"neighbours": 3})
    classifier = Angles()
    classifier.num_classes = 3
    with pytest.raises(RecipeError, match=r"evaluate.knn reads classes from features, but Angles gives classes itself"):
        evaluate(classifier, dataset=folder, knn={})
    with pytest.raises(ValueError, match="the model gives features and its teacher classes"):
        evaluate(Angles(), dataset=folder, teacher=classifier)
    with pytest.raises(RecipeError, match="a model that gives features has no usual one"):
        evaluate(Angles(), teacher=Angles())


def test_an_unsplit_set_is_not_its_own_neighbor(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        PILImage.fromarray(np.zeros((4, 4, 3), dtype=np.uint8)).save(tmp_path / name / "1.png")
    with pytest.raises(RecipeError, match="no image may be its own neighbor"):
        evaluate(Angles(), dataset=str(tmp_path), knn={"k": 1})


def test_a_damaged_shard_of_the_neighbors_alone_is_computed_again(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(passes_of, "BATCHES_IN_SHARD", 1)
    run = SharedRun(PartialResults(tmp_path / "parts"))
    before = predict(Angles(), dataset=folder, knn={"k": 3}, batch_size=2, run=run)
    damaged = tmp_path / "parts/bank/rows_2_4.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-8] + b"damaged?")
    model = Angles()
    again = predict(model, dataset=folder, knn={"k": 3}, batch_size=2, run=run)
    assert again.logits.equal(before.logits) and again.features.equal(before.features) and model.sizes == [2]


def test_a_class_without_a_vote_is_no_guess():
    votes = torch.tensor([[1.0, 0.0, 0.0], [0.4, 0.6, 0.0]]).log()
    row = summarize(FeaturePredictions(torch.eye(2), torch.tensor([1, 0]), "knn", votes))
    assert (row["top1"], row["top5"]) == (0.0, 50.0)


def test_predictions_survive_as_tensors():
    full = FeaturePredictions(torch.eye(2), torch.arange(2), "knn", torch.ones(2, 3), torch.zeros(2, 3))
    for predictions in (full, FeaturePredictions(torch.eye(2), torch.arange(2), "knn")):
        assert predictions_of(predictions.tensors() | {"seconds": torch.zeros(1)}, "knn") == predictions


@pytest.mark.parametrize("kind", sorted(FEATURES))
def test_what_a_real_model_gives_is_one_vector_an_image(kind):
    model = make_tiny(kind)
    outputs = model(torch.randn(2, 3, *image_size(model)))
    width = model.num_classes or model.head_hidden_size
    assert gives_vectors(model) == (outputs.ndim == 2) and pooled(model, outputs).shape == (2, width)
    assert tokens_of(model, outputs).shape[::2] == (2, width)


def test_tokens_are_pooled_as_timm_does_by_default():
    model = make_tiny("tokens")
    outputs = model(torch.randn(2, 3, *image_size(model)))
    assert torch.equal(pooled(model, outputs), outputs[:, 0])  # the class token
    model.cls_token, model.num_prefix_tokens = None, 3  # as with registers alone
    assert torch.allclose(pooled(model, outputs), outputs[:, 3:].mean(1))
    maps = torch.randn(2, 2, 5, 5)
    assert torch.allclose(pooled(Angles(), maps), maps.mean((2, 3)))
    with pytest.raises(ValueError, match=r"gives \(2, 7, 5, 5\) for 2 images: .* another global_pool"):
        pooled(Angles(), torch.randn(2, 7, 5, 5))
