import pytest
import torch
from tiny import make_tiny
from torch import nn

from vitdfq.preparation import prepare
from vitdfq.preparation.hadamard import HadamardTransform, hadamard, hadamard_factors, random_orthogonal


@pytest.mark.parametrize("size", [1, 2, 12, 20, 44, 64, 96, 192, 384, 768, 1024, 1280])
def test_hadamard(size):
    matrix = hadamard(size)
    assert matrix.abs().eq(1).all()
    assert torch.equal(matrix @ matrix.T, size * torch.eye(size, dtype=torch.float64))


def test_no_hadamard_of_odd_sizes():
    assert hadamard(7) is None and hadamard(36) is None


@pytest.mark.parametrize("size", [36, 64, 384])
def test_random_orthogonal(size):
    q = random_orthogonal(size, seed=3)
    torch.testing.assert_close(q @ q.T, torch.eye(size, dtype=torch.float64))
    assert torch.equal(q, random_orthogonal(size, seed=3))
    assert not torch.equal(q, random_orthogonal(size, seed=4))


@pytest.mark.parametrize("size", [128, 384, 1536, 3072])
def test_fast_transform_equals_its_matrix(size):
    transform = HadamardTransform(size, seed=0)
    left, right = hadamard_factors(size)
    assert len(left) * len(right) == size and len(left) + len(right) < size / 2
    x = torch.randn(5, size)
    torch.testing.assert_close(transform(x), x @ transform.matrix().T.float(), rtol=1e-4, atol=1e-4)


def test_mean_of_all_channels_does_not_gather_in_one():
    spread = HadamardTransform(512, seed=0)(torch.ones(1, 512))
    assert spread.abs().max() < 6  # one channel would hold all of sqrt(512) = 22.6


def test_outlier_channel_is_spread(images):
    teacher = make_tiny("vit")
    with torch.no_grad():
        teacher.pos_embed[..., 3] += 30  # an outlier channel of the residual stream
    rotated = prepare(teacher, steps=["rotate_residual"])

    def peak(model):
        found = []
        hook = model.blocks[0].attn.qkv.register_forward_pre_hook(lambda _, x: found.append(x[0]))
        model(torch.randn(4, 3, 32, 32))
        hook.remove()
        return (found[0].abs().amax() / found[0].square().mean().sqrt()).item()

    assert peak(rotated) < 0.8 * peak(teacher)


@pytest.mark.parametrize("kind", ["vit", "deit", "layer_scale"])
def test_all_rotations_together_keep_the_function(kind):
    teacher = make_tiny(kind).double()
    images = torch.randn(4, 3, *teacher.pretrained_cfg["input_size"][1:], dtype=torch.float64)
    steps = ["rotate_residual", "rotate_heads"]
    rotated = prepare(teacher, steps=steps)
    torch.testing.assert_close(rotated(images), teacher(images), rtol=1e-9, atol=1e-9)
    assert not any(isinstance(part, nn.LayerNorm) for part in rotated.modules())


def test_swin_is_refused():
    with pytest.raises(ValueError, match="pre-norm ViTs only"):
        prepare(make_tiny("swin"), steps=["rotate_residual"])


def test_default_steps_rotate_what_can_be_rotated():
    assert prepare(make_tiny("deit")).vitdfq["prepare"]["steps"] == ["rotate_residual", "rotate_heads", "rotate_mlp"]
    assert prepare(make_tiny("swin")).vitdfq["prepare"]["steps"] == ["fold_layer_scale"]
