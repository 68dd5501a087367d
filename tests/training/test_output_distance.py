"""The distance between student and teacher at the end of the network, for classes and for features."""

import pytest
import torch
from tiny import FEATURES, TINY, make_tiny
from torch.nn.functional import kl_div

from vitdfq.models import gives, image_size, units
from vitdfq.quantization import quantize
from vitdfq.training.output_distance import ModelOutputs, output_distance, run_to_outputs, sizes, stream_distance

pytestmark = pytest.mark.unit


def some_images(teacher, count=4):
    return torch.randn(count, 3, *image_size(teacher), generator=torch.Generator().manual_seed(0))


def disturbed(outputs, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return of_each(outputs, lambda x: x + 0.1 * torch.randn(x.shape, generator=rng))


def of_each(outputs, change):
    """Outputs whose tensors are changed, the stream's among them."""
    *ends, stream = outputs
    return ModelOutputs(*(None if x is None else change(x) for x in ends), stream=tuple(map(change, stream)))


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
@pytest.mark.parametrize("distance", [output_distance, stream_distance])
def test_the_distances_of_shards_add_up_to_that_of_the_batch(kind, distance):
    outputs = run_to_outputs(make_tiny(kind), some_images(make_tiny(kind)), with_stream=True)
    student = disturbed(outputs)
    cuts = (slice(0, 1), slice(1, 4))
    parts = [[of_each(values, lambda x, rows=rows: x[rows]) for rows in cuts] for values in (student, outputs)]
    total = sum(sizes(target) for target in parts[1])
    shares = [distance(part, target, total) for part, target in zip(*parts, strict=True)]
    torch.testing.assert_close(sum(shares), distance(student, outputs))


@pytest.mark.parametrize("kind", [*TINY, *FEATURES])
def test_the_stream_is_what_every_unit_but_the_last_writes(kind):
    teacher = make_tiny(kind)
    outputs = run_to_outputs(teacher, some_images(teacher), with_stream=True)
    x = some_images(teacher)
    for unit, written in zip(units(teacher)[:-1], outputs.stream, strict=True):
        x = unit.forward(x)
        assert torch.equal(x, written)
    assert not run_to_outputs(teacher, some_images(teacher)).stream


def test_stream_distance_by_hand():
    """1 of 4 in the first unit, 18 of 36 in the second: the mean of shares, whatever the units' sizes."""
    ends = {"tokens": torch.ones(1, 1, 1), "pooled": torch.ones(1, 1)}
    teacher = ModelOutputs(**ends, stream=(torch.tensor([[2.0, 0.0]]), torch.tensor([[6.0]])))
    student = ModelOutputs(**ends, stream=(torch.tensor([[2.0, 1.0]]), torch.tensor([[6.0 + 18.0**0.5]])))
    assert stream_distance(student, teacher).item() == pytest.approx((1 / 4 + 18 / 36) / 2)


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
