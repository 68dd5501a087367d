"""reparameterize: the channels of a norm's output get one range, and the float function does not change."""

import pytest
import timm
import torch
from tiny import make_student_float, make_tiny

from vitdfq.calibration import calibrate
from vitdfq.calibration.reparameterize import ReparameterizeOptions, reparameterize
from vitdfq.models import load_teacher, norm_readers
from vitdfq.models.record import hooked
from vitdfq.quantization import quantize


def reparameterized(teacher, images, bits="w4a4", activation=None, overrides=None, **options):
    student = quantize(teacher, bits=bits, activation=activation, overrides=overrides)
    reparameterize(student, teacher, images, ReparameterizeOptions(**options))
    return student


def ranges(model, images):
    """Minimum and maximum (C,) of each channel, over all inputs of the readers of each norm."""
    inputs = {}

    def collect(name):
        def hook(module, args):
            x = args[0].flatten(0, -2)
            inputs[name] = torch.cat([inputs[name], x]) if name in inputs else x

        return hook

    hooks = (
        model.get_submodule(reader).register_forward_pre_hook(collect(site.norm))
        for site in norm_readers(model)
        for reader in site.readers
    )
    with hooked(hooks):
        model(images)
    return {name: torch.aminmax(x, dim=0) for name, x in inputs.items()}


@pytest.mark.parametrize("reduce", ["median", "mean"])
@pytest.mark.parametrize("bits", ["w3a3", "w8a8"])
def test_the_float_function_does_not_change(teacher, images, reduce, bits):
    teacher, images = teacher.double(), images.double()
    student = reparameterized(teacher, images, bits, reduce=reduce)
    for site in norm_readers(teacher):
        assert not torch.equal(student.get_submodule(site.norm).weight, teacher.get_submodule(site.norm).weight)
        for name in site.readers:
            assert not torch.equal(student.get_submodule(name).weight, teacher.get_submodule(name).weight)
            assert not torch.equal(student.get_submodule(name).bias, quantize(teacher).get_submodule(name).bias)
    torch.testing.assert_close(make_student_float(student, teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)


def test_padded_windows_are_scaled_and_not_shifted():
    kwargs = {"img_size": 24, "patch_size": 2, "window_size": 8, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4]}
    torch.manual_seed(0)
    module = timm.create_model("swin_tiny_patch4_window7_224", num_classes=5, **kwargs)
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    teacher = load_teacher(module, **kwargs).double()
    images = torch.randn(4, 3, 24, 24, dtype=torch.float64)
    student = reparameterized(teacher, images)
    padded, whole = "layers.0.blocks.0", "layers.1.blocks.0"
    norm, changed = teacher.get_submodule(f"{padded}.norm1"), student.get_submodule(f"{padded}.norm1")
    torch.testing.assert_close(changed.bias / norm.bias, changed.weight / norm.weight)
    assert not torch.equal(changed.weight, norm.weight)
    moved = {name: student.get_submodule(f"{name}.attn.qkv").bias for name in (padded, whole)}
    assert torch.equal(moved[padded], teacher.get_submodule(f"{padded}.attn.qkv").bias)
    assert not torch.equal(moved[whole], teacher.get_submodule(f"{whole}.attn.qkv").bias)
    torch.testing.assert_close(make_student_float(student, teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)


def with_outlier(kind):
    """In every norm's output one channel has thirty times the range, and one a mean far from zero; the readers compensate."""
    teacher = make_tiny(kind)
    with torch.no_grad():
        for site in norm_readers(teacher):
            norm = teacher.get_submodule(site.norm)
            norm.weight[3] *= 30
            norm.bias[3] *= 30
            norm.bias[7] += 20
            for reader in map(teacher.get_submodule, site.readers):
                reader.weight[:, 3] /= 30
                if reader.bias is not None:
                    reader.bias -= 20 * reader.weight[:, 7]
    return teacher


@pytest.mark.parametrize("reduce", ["median", "mean"])
@pytest.mark.parametrize("kind", ["vit", "deit", "layer_scale", "swin"])
def test_channels_have_one_range(kind, reduce):
    teacher = with_outlier(kind)
    images = torch.randn(8, 3, *teacher.pretrained_cfg["input_size"][1:], generator=torch.Generator().manual_seed(2))
    before = ranges(teacher, images)
    after = ranges(make_student_float(reparameterized(teacher, images, "w8a8", reduce=reduce), teacher), images)
    for name, (low, high) in before.items():
        assert (high - low).max() / (high - low).median() > 8, name
        low, high = after[name]
        width = (high - low).median()
        assert (high - low).max() < 1.3 * width, name
        assert (low - low.median()).abs().max() < 0.2 * width, name
        # Real zero is one of the codes 0..255 of this range, up to half a code from rounding it.
        assert low.median() <= width / 255 and high.median() >= -width / 255, name


def test_the_zero_point_is_an_integer_code(monkeypatch, tiny_vit, images):
    """A zero point of 2.6 becomes 3; one outside the codes becomes the nearest code."""
    grids = {2.6: 3.0, -7.3: 0.0, 300.2: 255.0}
    for given, expected in grids.items():

        def per_channel(x, quantizer, tight, given=given):
            return torch.full((32,), 0.5).double(), torch.full((32,), given).double()

        monkeypatch.setattr("vitdfq.calibration.reparameterize._per_channel", per_channel)
        student = reparameterized(tiny_vit, images, "w8a8")
        moved = tiny_vit.get_submodule("norm").bias - student.get_submodule("norm").bias
        torch.testing.assert_close(moved, torch.full((32,), 0.5 * (expected - given)), rtol=1e-3, atol=1e-3)


def test_mean_and_median_differ_and_other_names_are_refused(tiny_vit, images):
    median, mean = (reparameterized(tiny_vit, images, reduce=name) for name in ("median", "mean"))
    assert not torch.equal(median.get_submodule("norm").weight, mean.get_submodule("norm").weight)
    assert torch.equal(median.get_submodule("norm").weight, reparameterized(tiny_vit, images).get_submodule("norm").weight)
    with pytest.raises(ValueError, match="unknown reduce 'medain', did you mean 'median'"):
        reparameterized(tiny_vit, images, reduce="medain")


def test_symmetric_grids_are_not_shifted(tiny_vit, images):
    student = reparameterized(tiny_vit, images, activation={"symmetric": True})
    assert torch.equal(student.get_submodule("blocks.0.attn.qkv").bias, tiny_vit.get_submodule("blocks.0.attn.qkv").bias)


def test_readers_with_float_inputs_do_not_change(tiny_vit, images):
    student = reparameterized(tiny_vit, images, overrides={"blocks.0.attn.qkv": {"activation": {"bits": None}}})
    same = [
        torch.equal(student.get_submodule(f"blocks.{i}.norm1").weight, tiny_vit.get_submodule(f"blocks.{i}.norm1").weight)
        for i in range(3)
    ]
    assert same == [True, False, False]


def test_the_error_of_outliers_shrinks(images):
    teacher = with_outlier("vit")

    def error(steps):
        student = calibrate(quantize(teacher, bits="w8a8", activation={"bits": 5}), teacher, images, steps=steps)
        return (student(images) - teacher(images)).square().mean()

    assert error(["reparameterize", "observe"]) < 0.5 * error(["observe"])


def test_a_channel_of_zeros_stays_finite(tiny_vit, images):
    with torch.no_grad():
        tiny_vit.get_submodule("blocks.0.norm1").weight[3] = 0
        tiny_vit.get_submodule("blocks.0.norm1").bias[3] = 0
    student = reparameterized(tiny_vit, images)
    assert all(value.isfinite().all() for value in student.parameters())
    name = "blocks.0.attn.qkv"
    ratio = student.get_submodule(name).weight[:, 3] / tiny_vit.get_submodule(name).weight[:, 3]
    assert ratio.min() > 1e-3  # on other images the channel may not be zero
