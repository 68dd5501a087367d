import pytest
import torch
from swins import SWINS, make_swin
from torch import nn

from vitdfq.models import build, image_size, record
from vitdfq.models.hadamard import mean_preserving
from vitdfq.preparation import prepare

ALL = ["rotate_residual", "rotate_heads", "rotate_mlp"]


def inputs(model):
    return torch.randn(3, 3, *image_size(model), generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.mark.parametrize("steps", [*([step] for step in ALL), ALL], ids=lambda steps: "+".join(steps))
@pytest.mark.parametrize("kind", sorted(SWINS))
def test_function_is_kept(kind, steps):
    teacher = make_swin(kind)
    images = inputs(teacher)
    rotated = prepare(teacher, steps=steps)
    torch.testing.assert_close(rotated(images), teacher(images), rtol=1e-9, atol=1e-9)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in rotated.modules())


def test_function_is_kept_at_a_size_it_was_not_built_for():
    teacher = make_swin("any_size")
    images = torch.randn(2, 3, 44, 36, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    torch.testing.assert_close(prepare(teacher, steps=ALL)(images), teacher(images), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*its student cannot be saved")  # the parts are put in by hand
def test_function_is_kept_without_a_norm_in_the_patch_embedding():
    teacher = make_swin("two_stages")
    teacher.patch_embed.norm = nn.Identity()
    images = inputs(teacher)
    torch.testing.assert_close(prepare(teacher, steps=ALL)(images), teacher(images), rtol=1e-9, atol=1e-9)


def test_weights_are_really_rotated():
    teacher = make_swin("three_stages")
    rotated = prepare(teacher, steps=ALL)
    for name, part in teacher.named_modules():
        if isinstance(part, nn.Linear):
            assert not torch.allclose(part.weight, rotated.get_submodule(name).weight, atol=0.02), name


@pytest.mark.parametrize("kind", sorted(SWINS))
def test_norms_have_no_affine_left(kind):
    rotated = prepare(make_swin(kind), steps=["rotate_residual"])
    norms = [part for part in rotated.modules() if isinstance(part, nn.LayerNorm)]
    assert norms and not any(list(norm.parameters()) for norm in norms)


def test_matrices_at_run_time_only_where_nothing_absorbs_them():
    def affines(kind):
        rotated = prepare(make_swin(kind), steps=["rotate_residual"])
        return [name for name, part in rotated.named_modules() if type(part).__name__ == "Affine"]

    assert affines("three_stages") == ["patch_embed.norm.1"]
    # Grids of 13, 7 and 4 tokens in windows of 4: the first two stages are padded.
    padded = [f"layers.{i}.blocks.{j}.norm1.1" for i in (0, 1) for j in (0, 1)]
    assert affines("padded") == ["patch_embed.norm.1", *padded]


@pytest.mark.parametrize("kind", ["padded", "no_biases"])
def test_replayed_by_prepare_on_an_untrained_model(kind):
    teacher = make_swin(kind)
    rotated = prepare(teacher, steps=ALL)
    replayed = prepare(build(teacher.vitdfq), **rotated.vitdfq["prepare"]).double()
    replayed.load_state_dict(rotated.state_dict(), strict=True)
    images = inputs(teacher)
    # The MLP's transform is not in the state: it was rebuilt in float32.
    torch.testing.assert_close(replayed(images), rotated(images), rtol=1e-5, atol=1e-5)


def peaks(model, images):
    """Largest value over rms at the input of every block's qkv and fc1, and of the last merge."""
    names = [name for name, part in model.named_modules() if name.endswith((".norm1", ".norm2", ".downsample.norm"))]
    with record(model, names) as outputs:
        model(images)
    return torch.stack([outputs[name].abs().amax() / outputs[name].square().mean().sqrt() for name in names])


@pytest.mark.parametrize("channel", [0, 5])
def test_outlier_channel_is_spread(channel):
    teacher = make_swin("three_stages", embed_dim=64)
    with torch.no_grad():
        teacher.patch_embed.norm.bias[channel] += 40
        for stage in list(teacher.layers)[1:]:
            stage.blocks[0].mlp.fc2.bias[channel] += 200
        for part in teacher.modules():  # what is looked at is the stream, not random gains
            if isinstance(part, nn.LayerNorm) and part is not teacher.patch_embed.norm:
                nn.init.ones_(part.weight)
    images = inputs(teacher)
    before, after = peaks(teacher, images), peaks(prepare(teacher, steps=["rotate_residual"]), images)
    outliers = before > 6
    assert outliers.sum() >= 6
    assert (after[outliers] < 0.7 * before[outliers]).all()


@pytest.mark.parametrize("size", [1, 2, 7, 16, 36, 96, 128, 192, 768])
def test_mean_preserving(size):
    q = mean_preserving(size, seed=3)
    ones = torch.ones(size, dtype=torch.float64)
    torch.testing.assert_close(q @ q.T, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(q @ ones, ones, rtol=0, atol=1e-12)
    assert torch.equal(q, mean_preserving(size, seed=3))
    assert size < 16 or not torch.equal(q, mean_preserving(size, seed=4))


@pytest.mark.parametrize("size", [96, 128, 192, 384, 768])
def test_mean_preserving_spreads_nearly_as_well_as_hadamard(size):
    q = mean_preserving(size, seed=0)
    columns = q - q.mean(0)  # the image of one channel, centered as a LayerNorm will
    peaks_of_channels = columns.abs().amax(0) / columns.square().mean(0).sqrt()
    assert peaks_of_channels.mean() < 1.4  # Hadamard: 1, a Haar matrix that keeps the mean: 2.7 to 3.4
    assert peaks_of_channels.max() < 2.6  # the same without signs at the rows: 2.8 to 4


@pytest.mark.parametrize("num_classes", [10, 0])
@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax", "catavgmax", ""])
def test_the_stream_is_turned_back_where_the_pooling_depends_on_the_basis(pooling, num_classes):
    if num_classes and not pooling:
        pytest.skip("it classifies each token")
    teacher = make_swin("two_stages", global_pool=pooling, num_classes=num_classes)
    images, rotated = inputs(teacher), prepare(teacher)
    assert rotated.vitdfq["prepare"]["steps"] == ALL
    torch.testing.assert_close(rotated(images), teacher(images), rtol=1e-9, atol=1e-9)
    assert isinstance(rotated.norm, nn.Sequential) == (pooling != "avg" or not num_classes)


def test_a_rotated_stream_is_not_rotated_again():
    with pytest.raises(ValueError, match="is the stream rotated already"):
        prepare(make_swin("two_stages"), steps=["rotate_residual", "rotate_residual"])
