"""The distance between student and teacher at the end of the network, for classes and for features."""

import pytest
import torch
from tiny import FEATURES, TINY, make_tiny
from torch.nn.functional import kl_div

from vitdfq.models import gives, image_size
from vitdfq.quantization import quantize
from vitdfq.training.output_distance import ModelOutputs, output_distance, run_to_outputs, sizes

pytestmark = pytest.mark.unit


def some_images(teacher, count=4):
    return torch.randn(count, 3, *image_size(teacher), generator=torch.Generator().manual_seed(0))


def disturbed(outputs, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return ModelOutputs(*(None if x is None else x + 0.1 * torch.randn(x.shape, generator=rng) for x in outputs))


@pytest.mark.parametrize("kind", [*TINY, *FEATURES])
def test_outputs_are_those_of_the_model(kind):
    teacher = make_tiny(kind)
    images = some_images(teacher)
    for model in (teacher, quantize(teacher, overrides={"*": {"bits": None}})):
        outputs = run_to_outputs(model, images)
        torch.testing.assert_close(outputs.tokens, model.forward_features(images))
        torch.testing.assert_close(outputs.pooled, model.forward_head(model.forward_features(images), pre_logits=True))
        last = next(x for x in (outputs.logits, outputs.embedding, outputs.pooled) if x is not None)
        torch.testing.assert_close(last, model(images))
        assert (outputs.logits is not None) == (gives(teacher) == "classes")
        assert (outputs.embedding is not None) == (kind == "embedding")
        assert output_distance(outputs, outputs) == 0


@pytest.mark.parametrize("kind", ["vit", "backbone", "tokens", "embedding"])
def test_the_distances_of_shards_add_up_to_that_of_the_batch(kind):
    outputs = run_to_outputs(make_tiny(kind), some_images(make_tiny(kind)))
    student = disturbed(outputs)
    parts = [
        [ModelOutputs(*(None if x is None else x[rows] for x in values)) for rows in (slice(0, 1), slice(1, 4))]
        for values in (student, outputs)
    ]
    total = sum(sizes(target) for target in parts[1])
    shares = [output_distance(part, target, total) for part, target in zip(*parts, strict=True)]
    torch.testing.assert_close(sum(shares), output_distance(student, outputs))


def test_distance_by_hand():
    """(1 of 4) of the tokens, (1 of 9) of the pooled features, and what a head makes of them."""
    tokens, pooled = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[3.0, 0.0]])
    body = {"tokens": tokens, "pooled": pooled}
    moved = {"tokens": tokens + torch.tensor([0.0, 1.0]), "pooled": pooled - torch.tensor([1.0, 0.0])}
    base = 1 / 4 + 1 / 9
    assert output_distance(ModelOutputs(**moved), ModelOutputs(**body)).item() == pytest.approx(base)
    embedding = torch.tensor([[0.0, 5.0]])
    student = ModelOutputs(**moved, embedding=embedding + torch.tensor([2.0, 0.0]))
    assert output_distance(student, ModelOutputs(**body, embedding=embedding)).item() == pytest.approx(base + 4 / 25)
    logits, others = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    expected = kl_div(others.log_softmax(1), logits.log_softmax(1), log_target=True, reduction="sum").item()
    student, teacher = ModelOutputs(**moved, logits=others), ModelOutputs(**body, logits=logits)
    assert output_distance(student, teacher).item() == pytest.approx(base + expected)
