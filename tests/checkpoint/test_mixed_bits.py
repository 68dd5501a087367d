"""Bits by layer survive everything that is done with a student."""

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny

import vitdfq
from vitdfq.checkpoint.save_load import describe
from vitdfq.models import image_size
from vitdfq.quantization.integer import integer_report
from vitdfq.quantization.modules import named_sites, named_weighted_modules
from vitdfq.quantization.quantizers.base import Unquantized

CHOICES = (2, 3, 4, 5, 6, 7, 8)


@pytest.fixture(params=["vit", "swin"])
def mixed(request):
    """(student whose layers have 2 to 8 bits in turn, bits by layer, images)."""
    teacher = vitdfq.prepare(make_tiny(request.param))
    images = torch.randn(4, 3, *image_size(teacher), generator=torch.Generator().manual_seed(1))
    layers = [name for name, _ in named_weighted_modules(vitdfq.quantize(teacher))]
    bits = {name: CHOICES[index % len(CHOICES)] for index, name in enumerate(layers)}
    student = vitdfq.quantize(teacher, bits="w4a8", overrides={name: {"weight": {"bits": bits[name]}} for name in layers})
    return vitdfq.calibrate(student, teacher, images, steps=["observe", "gptq"]), bits, images


def test_a_checkpoint_holds_each_layer_in_its_bits(mixed, tmp_path):
    student, bits, images = mixed
    tensors = load_file(vitdfq.save(student, tmp_path) / "model.safetensors")
    loaded = vitdfq.load(tmp_path)
    assert torch.equal(loaded(images), student(images))
    assert {name: layer.weight_quantizer.bits for name, layer in named_weighted_modules(loaded)} == bits
    for name, layer in named_weighted_modules(student):
        rows, columns = layer.weight.flatten(1).shape
        assert tensors[f"{name}.weight_packed"].shape == (rows, -(-columns * bits[name] // 32))
    told = {int(part) for row in describe(tmp_path)["layers"].values() for part in row["weight bits"].split(", ")}
    assert told == set(bits.values())


def test_integers_compute_the_same(mixed):
    student, _, images = mixed
    integer = vitdfq.to_integer(student)
    assert integer_report(integer)["simulated"] == {}
    wanted = student(images)
    assert (integer(images) - wanted).norm() < 0.02 * wanted.norm()


def test_the_plain_model_has_the_quantized_weights(mixed, tmp_path):
    student, _, images = mixed
    plain = vitdfq.load(vitdfq.save(student, tmp_path), dequantize=True)
    for site in named_sites(student).values():
        for attribute in site.operand_quantizers:
            setattr(site, attribute, Unquantized())
    wanted = student(images)
    assert (plain(images) - wanted).norm() < 0.05 * wanted.norm()  # LayerNorm drops what a rotated ViT's norms had seen


def test_the_export_computes_the_same(mixed, tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    student, _, _ = mixed
    result = vitdfq.export(student, tmp_path / "model.onnx")  # refused if onnxruntime's outputs are not the student's
    assert (tmp_path / "model.onnx").is_file() and result["sqnr_db"] > 30
