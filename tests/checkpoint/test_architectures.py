"""Save, load and dequantize where a family's variants differ: separate q, k and v, shared values, mixed rotary positions."""

import pytest
import timm
import torch
from architectures import ARCHITECTURES, randomize
from tiny import make_student_float

import vitdfq
from vitdfq.models import image_size

pytestmark = pytest.mark.integration
KINDS = {  # -> layers that keep a bias which timm has not, since no norm in front can take it
    "eva02_separate_qkv": set(),  # its keys have none
    "eva02_enormous": set(),
    "dinov3_without_biases": {"blocks.0.attn.qkv", "blocks.1.attn.qkv"},
    "dinov3_swiglu": {"blocks.0.attn.qkv", "blocks.1.attn.qkv"},
    "rope_mixed": set(),
    "perception_encoder": set(),
    "sapiens": set(),
    "siglip2": set(),
    "beit_shared_bias": set(),
    "relpos_shared": {"blocks.0.attn.qkv", "blocks.1.attn.qkv"},
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_variant_survives_a_checkpoint(kind, tmp_path):
    name, arguments = ARCHITECTURES[kind]
    module = timm.create_model(name, **arguments)
    randomize(module)
    teacher = vitdfq.load_teacher(module, **arguments)
    prepared = vitdfq.prepare(teacher)
    images = torch.randn(4, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    student = vitdfq.calibrate(
        vitdfq.quantize(prepared, bits="w6a6"),
        prepared,
        images,
        steps=[{"center": {"guarded": False}}, "observe", "correct_bias"],
    )
    vitdfq.save(student, tmp_path)
    assert torch.equal(vitdfq.load(tmp_path)(images), student(images))
    vitdfq.to_integer(student)(images)

    plain, reference = vitdfq.load(tmp_path, dequantize=True), timm.create_model(name, **arguments).eval()
    expected = make_student_float(student, prepared)(images)
    assert ((plain(images) - expected).norm() / expected.norm()).item() < 0.02
    extra = {key.removesuffix(".bias") for key in set(plain.state_dict()) - set(reference.state_dict())}
    assert extra == KINDS[kind]
    if not extra:
        reference.load_state_dict(plain.state_dict())
        torch.testing.assert_close(reference(images), plain(images), rtol=1e-4, atol=1e-4 * expected.abs().max().item())
