import pytest
import torch
from tiny import kinds_with, make_tiny
from torch import nn

from vitdfq.models import family_of, image_size, load_teacher
from vitdfq.models.hadamard import HadamardTransform, hadamard, orthogonal_factors, random_orthogonal
from vitdfq.preparation import prepare
from vitdfq.preparation.prepare import ROTATIONS as KINDS

ROTATIONS = list(KINDS)
ROTATED = kinds_with(lambda model: family_of(model).rotation)
POST_NORM = {"swin_v2", "swin_v2_cr"}  # their norms write into the stream


@pytest.mark.parametrize("size", [1, 2, 12, 20, 44, 64, 96, 192, 384, 768, 1024, 1280])
def test_hadamard(size):
    matrix = hadamard(size)
    assert matrix is not None
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


@pytest.mark.parametrize("size", [128, 384, 1152, 1536, 3072, 4096, 4608, 5120, 6144])
def test_fast_transform_equals_its_matrix(size):
    transform = HadamardTransform(size, seed=0).float()
    left, right = orthogonal_factors(size, seed=0)
    assert hadamard(len(left)) is not None and hadamard(len(right)) is not None
    assert len(left) * len(right) == size and len(left) + len(right) < size / 2
    x = torch.randn(5, size)
    torch.testing.assert_close(transform(x), x @ transform.matrix().T.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [7, 36, 138, 171, 448, 4304])
def test_sizes_without_a_hadamard_matrix(size):
    transform = HadamardTransform(size, seed=0)
    x = torch.randn(5, size, dtype=torch.float64)
    torch.testing.assert_close(transform(x), x @ transform.matrix().T)
    torch.testing.assert_close(transform(x).norm(dim=1), x.norm(dim=1))
    outlier = torch.zeros(1, size, dtype=torch.float64)
    outlier[0, size // 2] = size**0.5
    assert size < 100 or transform(outlier).abs().max() < 6  # sqrt(size) before


def test_mean_of_all_channels_does_not_gather_in_one():
    spread = HadamardTransform(512, seed=0)(torch.ones(1, 512).double())
    assert spread.abs().max() < 6  # one channel would hold all of sqrt(512) = 22.6


def test_outlier_channel_is_spread(images):
    teacher = make_tiny("vit")
    with torch.no_grad():
        teacher.pos_embed[..., 3] += 30  # an outlier channel of the residual stream
    rotated = prepare(teacher, steps=["rotate_residual"])

    def peak(model):
        inputs = []
        hook = model.blocks[0].attn.qkv.register_forward_pre_hook(lambda _, x: inputs.append(x[0]))
        model(torch.randn(4, 3, 32, 32))
        hook.remove()
        return (inputs[0].abs().amax() / inputs[0].square().mean().sqrt()).item()

    assert peak(rotated) < 0.8 * peak(teacher)


@pytest.mark.parametrize("steps", [*([step] for step in ROTATIONS), ROTATIONS], ids=lambda steps: "+".join(steps))
@pytest.mark.parametrize("kind", ROTATED)
def test_rotations_keep_the_function(kind, steps):
    teacher = make_tiny(kind).double()
    if "rotate_residual" in steps and kind in POST_NORM:
        with pytest.raises(ValueError, match="rotate_residual works on blocks whose norms stand before"):
            prepare(teacher, steps=steps)
        return
    images = torch.randn(4, 3, *image_size(teacher), dtype=torch.float64)
    rotated = prepare(teacher, steps=steps)
    torch.testing.assert_close(rotated(images), teacher(images), rtol=1e-9, atol=1e-9)
    if "rotate_residual" in steps:
        norms = [site.norm for stream in family_of(teacher).rotation.streams(teacher) for site in stream.readers]
        assert norms and not any(list(rotated.get_submodule(name).parameters()) for name in norms)


def test_families_that_are_rotated():
    rotated = {"vit", "deit", "layer_scale", "swin", "eva", "beit", "relpos", "swin_v2"}
    assert rotated <= set(ROTATED) and "levit" not in ROTATED


@pytest.mark.parametrize("kind", ["vit", "deit", "layer_scale", "eva", "beit", "relpos"])
def test_a_centered_stream_has_no_layer_norm(kind):
    rotated = prepare(make_tiny(kind), steps=["rotate_residual"])
    assert not any(isinstance(part, nn.LayerNorm) for part in rotated.modules())


def test_mlp_of_a_size_without_a_hadamard_matrix():
    kwargs = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 4.3125}
    teacher = load_teacher("vit_tiny_patch16_224", pretrained=False, **kwargs).double()
    assert teacher.blocks[0].mlp.fc2.in_features == 138  # 6 · 23
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(prepare(teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)
