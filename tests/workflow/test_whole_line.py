"""The whole line: images, prepare, quantize, observe, save, load to the last bit, integers, ONNX; for every kind of teacher."""

import pytest
import torch
from tiny import FEATURES, TINY, make_tiny

import vitdfq
from vitdfq.models import image_size, load_teacher
from vitdfq.models.block_maps import in_one, map_names

onnx = pytest.importorskip("onnx")
BITS = {"levit": "w8a8", "levit_backbone": "w8a8"}  # at four bits another order of summation changes LeViT's outputs too much
MAPS = {f"maps of {kind}": kind for kind in ("vit", "clip", "eva", "swin", "levit")}
QUICK = ("maps of vit", "maps of swin")
CASES = [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in [*TINY, *FEATURES, *MAPS]]


def teacher_of(case: str) -> torch.nn.Module:
    """A tiny teacher that gives classes, features, or the maps behind its first two blocks or stages."""
    if case not in MAPS:
        return make_tiny(case)
    kind = MAPS[case]
    return load_teacher(make_tiny(kind), outputs=[0, 1], **TINY[kind][1])


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_the_whole_line(case, tmp_path):
    teacher = teacher_of(case)
    images = vitdfq.synthesize(teacher, method="noise", num_images=4)
    prepared = vitdfq.prepare(teacher)
    target = in_one(teacher(images))
    assert (in_one(prepared(images)) - target).norm() < 1e-5 * target.norm()
    student = vitdfq.quantize(prepared, bits=BITS.get(MAPS.get(case, case), "w4a4"))
    steps = ["observe", "gptq"] if case in MAPS else ["observe"]
    vitdfq.calibrate(student, prepared, images, steps=steps)
    quantized = in_one(student(images))
    assert 1e-4 * target.norm() < (quantized - target).norm() < 0.9 * target.norm()
    folder = vitdfq.save(student, tmp_path / "student")
    assert torch.equal(in_one(vitdfq.load(folder)(images)), quantized)
    integers = in_one(vitdfq.to_integer(student)(images))
    assert (integers - quantized).norm() < 0.3 * quantized.norm()  # a rounding step that falls otherwise goes through all layers
    vitdfq.export(folder)  # compares every site
    outputs = onnx.load(folder / "onnx/model.onnx").graph.output
    assert len(outputs) == max(1, len(map_names(teacher)))
    if case in MAPS:
        assert [output.name for output in outputs] == map_names(teacher)
    assert image_size(teacher) == tuple(images.shape[2:])


@torch.no_grad()
def test_maps_are_compared_with_the_teachers():
    teacher = teacher_of("maps of swin")  # of two sizes
    images = vitdfq.synthesize(teacher, method="noise", num_images=4)
    student = vitdfq.calibrate(vitdfq.quantize(teacher, bits="w8a8"), teacher, images, steps=["observe"])
    found = vitdfq.evaluate(student, teacher=teacher, dataset="zoo:fashion-mnist", num_images=4)
    assert 0.99 < found["cosine"] < 1 and 0 < found["relative_error"] < 0.1 and found["top1"] is None
