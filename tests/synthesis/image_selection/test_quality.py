"""Label-free measures of images."""

import math

import pytest
import torch
from tiny import make_tiny
from torch.nn.functional import cosine_similarity

from vitdfq.synthesis import quality
from vitdfq.synthesis.image_selection.quality import NormMoments


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


def test_distance_of_norm_moments_by_hand():
    # Normalized, the tokens are (-√2, √2, 0, 0) and (0, 0, -√2, √2): every channel has μ² = 1/2 and σ² = 1/2, and
    # (σ² + μ² - 1 - ln σ²) / 2 = ln 2 / 2.
    moments = NormMoments()
    moments.add(torch.tensor([[[0.0, 2.0, 1.0, 1.0]]]))
    moments.add(torch.tensor([[[5.0, 5.0, 4.0, 6.0]]]))
    assert moments.distance() == pytest.approx(math.log(2) / 2, rel=1e-5)


def test_distance_of_normal_tokens_is_small_and_of_identical_ones_large():
    normal, alike = NormMoments(), NormMoments()
    tokens = torch.randn(64, 50, 96, generator=torch.Generator().manual_seed(0))
    normal.add(tokens)
    alike.add(tokens[:1, :1].expand(64, 50, 96))
    assert normal.distance() < 0.01 and alike.distance() > 5 and math.isfinite(alike.distance())


@pytest.mark.parametrize("kind", ["vit", "deit", "swin"])
def test_layer_norm_distance_against_a_slow_reference(kind):
    teacher = make_tiny(kind)
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    inputs = {}
    norms = {name: part for name, part in teacher.named_modules() if isinstance(part, torch.nn.LayerNorm)}
    handles = [
        part.register_forward_hook(lambda _, args, __, name=name: inputs.update({name: args[0]})) for name, part in norms.items()
    ]
    teacher(images)
    for handle in handles:
        handle.remove()
    prefix = {"vit": 1, "deit": 2, "swin": 0}[kind]
    distances = []
    for tokens in inputs.values():
        tokens = tokens.flatten(1, -2)[:, prefix:].flatten(0, 1)
        unit = torch.stack([(token - token.mean()) / token.std(correction=0) for token in tokens])
        normals = [torch.distributions.Normal(unit[:, c].mean(), unit[:, c].std(correction=0)) for c in range(unit.shape[1])]
        standard = torch.distributions.Normal(0.0, 1.0)
        distances.append(sum(torch.distributions.kl_divergence(normal, standard).item() for normal in normals) / len(normals))
    measured = quality(teacher, images, batch_size=2)["layer_norm_distance"]
    assert measured == pytest.approx(sum(distances) / len(distances), rel=1e-3)
    assert not any(part._forward_hooks for part in teacher.modules())


def test_a_teacher_without_layer_norms_has_no_distance():
    teacher = make_tiny("vit")
    for name, part in list(teacher.named_modules()):
        if isinstance(part, torch.nn.LayerNorm):
            teacher.set_submodule(name, torch.nn.Identity())
    assert quality(teacher, torch.zeros(2, 3, 32, 32))["layer_norm_distance"] is None
