"""A student whose quantizers are switched one by one."""

import pytest
import torch
from tiny import TO_CALIBRATE, make_tiny

import vitdfq
from vitdfq.analysis.switches import WEIGHT
from vitdfq.analysis.untrained import calibrated_switches
from vitdfq.models import image_size, units
from vitdfq.quantization.modules import named_sites
from vitdfq.runtime.run import Run

STEPS = [{"center": {"guarded": False}}, "observe", "gptq"]


def switches_of(teacher, images, **options):
    return calibrated_switches(vitdfq.quantize(teacher, **options), teacher, images, STEPS, 0, Run())


@pytest.mark.parametrize("kind", TO_CALIBRATE)
@torch.no_grad()
def test_off_is_the_teacher_and_on_is_the_calibrated_student(kind):
    teacher = vitdfq.prepare(make_tiny(kind))
    images = torch.randn(4, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    student = vitdfq.calibrate(vitdfq.quantize(teacher, bits="w3a3"), teacher, images, steps=STEPS)
    switches = switches_of(teacher, images, bits="w3a3")
    wanted = teacher(images)
    for _ in range(2):  # back and forth leaves nothing behind
        switches.only([])
        error = (switches.student(images) - wanted).norm() / wanted.norm()
        assert error < 1e-4, error
        switches.only(switches.parts)
        assert torch.equal(switches.student(images), student(images))


@torch.no_grad()
def test_one_site_alone_changes_nothing_before_it(tiny_vit, images):
    switches = switches_of(tiny_vit, images, bits="w2a2")
    for site, first in (("blocks.1.mlp.fc1", 2), ("blocks.2.attn.av", 3)):
        switches.only([])
        streams = [images]
        for unit in units(switches.student):
            streams.append(unit.forward(streams[-1]))
        switches.only(switches.parts_of([site]))
        x = images
        for index, unit in enumerate(units(switches.student)):
            x = unit.forward(x)
            assert torch.equal(x, streams[index + 1]) == (index < first)


def test_weights_and_activations_of_a_site_are_apart(tiny_vit, images):
    switches = switches_of(tiny_vit, images, bits="w3a3")
    switches.only([("blocks.0.mlp.fc1", WEIGHT)])
    layer = switches.layers["blocks.0.mlp.fc1"]
    assert layer.input_quantizer.bits is None and torch.equal(layer.weight, switches.quantized_weights["blocks.0.mlp.fc1"])
    switches.only([("blocks.0.mlp.fc1", "input_quantizer")])
    assert layer.input_quantizer.bits == 3 and torch.equal(layer.weight, switches.float_weights["blocks.0.mlp.fc1"])


def test_what_stays_in_float_is_no_part(tiny_vit, images):
    switches = switches_of(tiny_vit, images, bits="w4a16", overrides={"head": {"weight": {"bits": None}}})
    layers = [name for name, site in named_sites(switches.student).items() if "weight_quantizer" in site.quantizers]
    assert switches.parts == [(name, WEIGHT) for name in layers if name != "head"]
