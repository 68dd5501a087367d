"""equalize: outliers of activations shrink, and the float function does not change."""

import pytest
import timm
import torch
from tiny import make_student_float, make_tiny
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.calibration.equalize import EqualizeOptions, equalize, equalize_values
from vitdfq.calibration.reparameterize import reparameterize
from vitdfq.models import load_teacher, norm_readers, projections, record
from vitdfq.models.record import hooked
from vitdfq.preparation import prepare
from vitdfq.quantization import quantize

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def equalized(teacher, images, **options):
    student = quantize(teacher)
    equalize(student, teacher, images, EqualizeOptions(**options))
    return student


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_float_function_does_not_change(teacher, images, alpha):
    teacher, images = teacher.double(), images.double()
    student = equalized(teacher, images, alpha=alpha)
    changed = [
        name for name, value in student.named_parameters() if not torch.equal(value, parameter_or_zero(teacher, name, value))
    ]
    assert {f"{site.norm}.weight" for site in norm_readers(teacher)} <= set(changed)
    assert {f"{reader}.weight" for site in norm_readers(teacher) for reader in site.readers} <= set(changed)
    if projections(teacher):  # of a watched model they are not known
        assert {name for name in student.state_dict() if name.endswith("proj.weight") and "attn" in name} <= set(changed)
    torch.testing.assert_close(make_student_float(student, teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)


def parameter_or_zero(teacher, name, value):
    return dict(teacher.named_parameters()).get(name, torch.zeros_like(value))


@pytest.mark.parametrize(
    "inner", [{"scale_attn_norm": True, "scale_mlp_norm": True}, {"qk_norm": True}, {"norm_layer": "rmsnorm"}]
)
def test_the_float_function_does_not_change_with_other_norms(inner):
    torch.manual_seed(0)
    module = timm.create_model("vit_tiny_patch16_224", num_classes=5, **VIT, **inner)
    for parameter in module.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    teacher = load_teacher(module, **VIT, **inner).double()
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    student = equalized(teacher, images)
    torch.testing.assert_close(make_student_float(student, teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)


def with_outlier(kind):
    """One channel of every norm's output, and one of the values, is thirty times as large as the others."""
    teacher = make_tiny(kind)
    with torch.no_grad():
        for site in norm_readers(teacher):
            norm = teacher.get_submodule(site.norm)
            norm.weight[3] *= 30
            norm.bias[3] *= 30
            for reader in site.readers:
                teacher.get_submodule(reader).weight[:, 3] /= 30
        for part in teacher.modules():
            if hasattr(part, "qkv"):
                row = 2 * len(part.qkv.weight) // 3 + 5
                part.qkv.weight[row] *= 30
                part.qkv.bias[row] *= 30
                part.proj.weight[:, 5] /= 30
    return teacher


def peak_ratios(model, images, names):
    """The largest over the median peak of the channels of each module's input."""
    ratios = {}

    def measure(name):
        def hook(module, args):
            channels = args[0].abs().flatten(0, -2).amax(0)
            ratios[name] = (channels.max() / channels.median()).item()

        return hook

    with hooked(model.get_submodule(name).register_forward_pre_hook(measure(name)) for name in names):
        model(images)
    return ratios


@pytest.mark.parametrize("kind", ["vit", "deit", "swin"])
def test_outliers_shrink(kind):
    teacher = with_outlier(kind)
    images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    names = [reader for site in norm_readers(teacher) for reader in site.readers]
    names += [name for name, part in teacher.named_modules() if name.endswith("attn.proj") and isinstance(part, nn.Linear)]
    before = peak_ratios(teacher, images, names)
    after = peak_ratios(make_student_float(equalized(teacher, images), teacher), images, names)
    # The channel's weights are thirty times smaller as its activations are thirty times larger: alpha 0.5 balances both.
    assert all(after[name] < before[name] / 5 for name in names), (before, after)


def test_alpha_one_gives_channels_one_range(tiny_vit, images):
    plain = make_student_float(equalized(tiny_vit, images, alpha=1.0), tiny_vit)
    assert all(ratio < 1.001 for ratio in peak_ratios(plain, images, ["blocks.0.attn.qkv", "blocks.1.mlp.fc1"]).values())


def test_the_student_is_measured_not_the_teacher(tiny_vit, images):
    """With alpha 1 the student's channels have one range, so that a second call has no effect; the teacher's do not."""
    student = equalized(tiny_vit, images, alpha=1.0)
    before = student.get_submodule("blocks.1.norm2").weight.clone()
    equalize(student, tiny_vit, images, EqualizeOptions(alpha=1.0))
    torch.testing.assert_close(student.get_submodule("blocks.1.norm2").weight, before, rtol=1e-4, atol=1e-5)


def test_the_scale_is_that_of_the_paper(tiny_vit, images):
    student = equalized(tiny_vit, images, alpha=0.3)
    with record(tiny_vit, ["blocks.1.norm2"]) as outputs:
        tiny_vit(images)
    x = outputs["blocks.1.norm2"].abs().amax((0, 1))
    w = tiny_vit.get_submodule("blocks.1.mlp.fc1").weight.abs().amax(0)
    expected = tiny_vit.get_submodule("blocks.1.norm2").weight / (x**0.3 / w**0.7)
    torch.testing.assert_close(student.get_submodule("blocks.1.norm2").weight, expected)


def test_the_error_of_outliers_shrinks(images):
    teacher = with_outlier("vit")

    def error(steps):
        student = calibrate(quantize(teacher, bits="w6a6"), teacher, images, steps=steps)
        return (student(images) - teacher(images)).square().mean()

    assert error(["equalize", "observe"]) < 0.5 * error(["observe"])


def test_values_alone_are_equalized_in_a_rotated_model(teacher, images):
    teacher, images = prepare(teacher.double()), images.double()
    student = quantize(teacher)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    equalize_values(student, teacher, images)
    changed = {
        name for name, value in student.state_dict().items() if not torch.equal(value.nan_to_num(), before[name].nan_to_num())
    }
    written = {part for site in projections(teacher) if site.reader for part in (site.reader, site.values.linear)}
    assert {f"{name}.weight" for name in written} <= changed
    torch.testing.assert_close(make_student_float(student, teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)


def test_heads_of_unlike_values_get_one_range(tiny_vit, images):
    """One head's values are ten times as large as the other's, in a rotated model; alpha 1 gives all channels one range."""
    head = tiny_vit.blocks[0].attn.head_dim
    with torch.no_grad():
        tiny_vit.blocks[0].attn.qkv.weight[-head:] *= 10
    teacher = prepare(tiny_vit)
    student = quantize(teacher)
    equalize_values(student, teacher, images, EqualizeOptions(alpha=1.0))
    before, after = (
        peak_ratios(model, images, ["blocks.0.attn.proj"]) for model in (teacher, make_student_float(student, teacher))
    )
    assert before["blocks.0.attn.proj"] > 3
    assert after["blocks.0.attn.proj"] < 1.001


def test_a_channel_of_zeros_stays_finite(tiny_vit, images):
    with torch.no_grad():
        tiny_vit.get_submodule("blocks.0.norm1").weight[3] = 0
        tiny_vit.get_submodule("blocks.0.norm1").bias[3] = 0
        tiny_vit.get_submodule("blocks.0.mlp.fc1").weight[:, 4] = 0
    student = calibrate(quantize(tiny_vit), tiny_vit, images, steps=["equalize", "observe"])
    assert all(value.isfinite().all() for value in student.state_dict().values())


def test_steps_can_follow_each_other(teacher, images):
    teacher, images = teacher.double(), images.double()
    student = quantize(teacher)
    for step in (reparameterize, equalize, reparameterize):
        step(student, teacher, images)
    torch.testing.assert_close(make_student_float(student, teacher)(images), teacher(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_alpha_out_of_range_is_refused(tiny_vit, images, alpha):
    with pytest.raises(ValueError, match=f"^step 'equalize': alpha is {alpha}; choices: 0 to 1$"):
        calibrate(quantize(tiny_vit), tiny_vit, images, steps=[{"equalize": {"alpha": alpha}}, "observe"])
