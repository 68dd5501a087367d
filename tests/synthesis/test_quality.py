"""Label-free measures of images."""

import pytest
import torch
from tiny import make_tiny
from torch.nn.functional import cosine_similarity

from vitdfq.synthesis import quality


@pytest.mark.parametrize("kind", ["vit", "deit", "swin", "levit"])
def test_quality_against_a_slow_reference(kind):
    teacher = make_tiny(kind)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = teacher.forward_head(teacher.forward_features(images), pre_logits=True)
    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    distances = [1 - cosine_similarity(features[i], features[j], dim=0).item() for i, j in pairs]
    probabilities = teacher(images).softmax(-1)
    measured = quality(teacher, images, batch_size=2)
    assert measured["class_confidence"] == pytest.approx(probabilities.amax(-1).mean().item(), rel=1e-5)
    assert measured["diversity"] == pytest.approx(sum(distances) / 20, rel=1e-2)
    assert measured["num_classes_seen"] == len(probabilities.argmax(-1).unique())


def test_copies_of_one_image_have_no_diversity():
    teacher = make_tiny("vit")
    image = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert quality(teacher, image.expand(4, -1, -1, -1))["diversity"] == pytest.approx(0, abs=1e-6)
    assert quality(teacher, image)["diversity"] == 0
