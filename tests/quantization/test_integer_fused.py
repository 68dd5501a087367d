"""Blocks of integer students by compiled kernels: they compute what their sites compute one by one."""

import os
from copy import deepcopy
from ctypes import byref, c_long, c_void_p
from pathlib import Path

import pytest
import torch
from fused_blocks import blocks_of, each_target, require_kernels, site_by_site
from integer_students import OPTIONS, student_of
from tiny import TINY
from torch import nn

from vitdfq.calibration import calibrate
from vitdfq.quantization import quantize
from vitdfq.quantization.integer import to_integer
from vitdfq.quantization.integer.codes import Range
from vitdfq.quantization.integer.fused import block, library
from vitdfq.quantization.integer.fused.form import Input, Weight
from vitdfq.quantization.integer.fused.packed import PackedBlock
from vitdfq.quantization.quantizers.uniform import Uniform

EIGHT_BITS = {"bits": 8, "weight": {"symmetric": True}, "activation": {"symmetric": True}}  # of a layer
FUSED = {  # what is special: the kind of teacher, arguments of quantize
    "w8a8": ("vit", OPTIONS["w8a8"]),
    "w6a6": ("vit", OPTIONS["w6a6"]),
    "w4a4": ("vit", OPTIONS["w4a4"]),
    "w2a2": ("vit", {"bits": "w2a2"}),
    "two prefix tokens": ("deit", OPTIONS["w4a4"]),
    "folded LayerScale": ("layer_scale", OPTIONS["w8a8"]),
    "a norm in front": ("clip", OPTIONS["w6a6"]),
    "no prefix tokens": ("siglip", OPTIONS["w4a4"]),
    "symmetric prefix tokens": ("vit", {"bits": "w8a8", "activation": {"per_prefix_token": True, "symmetric": True}}),
    "per head": ("vit", {"bits": "w8a8", "activation": {"per_head": True}}),
    "5 bits": ("vit", {"bits": "w3a5"}),
    "one layer of 8 bits": ("vit", {"bits": "w4a4", "overrides": {"*fc1": EIGHT_BITS}}),
    "scores of 8 bits": ("vit", {"bits": "w4a4", "overrides": {"*qk": {"bits": 8}}}),
    "LayerNorms that are not folded": (
        "vit unprepared",
        {"bits": "w8a8", "policy": "fq_vit", "softmax": {"quantizer": "uniform"}},
    ),
    "softmax of 6 bits in half octaves": ("vit", {"bits": "w6a6", "softmax": {"quantizer": "log_sqrt2"}}),
    "softmax of 4 bits in half octaves": ("vit", {"bits": "w4a4", "softmax": {"quantizer": "log_sqrt2"}}),
    "values of 8 bits, log2 of 4": ("vit", {"bits": "w8a8", "softmax": {"quantizer": "log2", "bits": 4}}),
    "values of 8 bits, half octaves of 5": ("vit", {"bits": "w8a8", "softmax": {"quantizer": "log_sqrt2", "bits": 5}}),
    "softmax with a zero point": ("vit", {"bits": "w8a8", "softmax": {"symmetric": True}}),
    "uniform softmax, rows renormalized": ("vit", {"bits": "w4a8", "softmax": {"renormalize": True}}),
    "logarithmic softmax, rows as they are": ("vit", {"bits": "w4a4", "softmax": {"renormalize": False}}),
    "twin softmax": ("vit", {"bits": "w8a8", "softmax": {"quantizer": "twin_softmax", "renormalize": False}}),
    "twin softmax of 4 bits, two prefix tokens": ("deit", {"bits": "w4a4", "softmax": {"quantizer": "twin_softmax"}}),
    "twin softmax, values per head": (
        "vit",
        {"bits": "w8a8", "activation": {"per_head": True}, "softmax": {"quantizer": "twin_softmax"}},
    ),
}
SITE_BY_SITE = {
    "a range for each token": ("vit", OPTIONS["dynamic w8a8"]),
    "prefix tokens whose numbers exceed int8": ("vit", OPTIONS["prefix tokens apart"]),
    "weights whose numbers exceed int8": ("vit", {"bits": "w8a8", "weight": {"symmetric": False}}),
    "groups of weights": ("vit", OPTIONS["groups"]),
    "twins": ("vit", OPTIONS["weights per tensor, twins"]),
    "a float site": ("vit", {"bits": "w8a8", "overrides": {"*qk": {"bits": None}}}),
    "another family": ("swin", OPTIONS["w8a8"]),
}


def images_for(kind: str) -> torch.Tensor:
    size = TINY[kind][1]["img_size"]
    return torch.randn(8, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FUSED)
def test_a_block_computes_what_its_sites_compute(monkeypatch, name):
    """With any instructions; but for values within float rounding of a boundary between two codes: those spoil an image each."""
    require_kernels()
    kind, options = FUSED[name]
    kind, _, unprepared = kind.partition(" ")
    images = images_for(kind)
    integer = to_integer(student_of(kind, options, images, prepare=not unprepared, gain=3))
    fused = blocks_of(integer)
    assert len(fused) == TINY[kind][1]["depth"]
    inputs = {}
    for part in fused:
        part.register_forward_pre_hook(lambda part, given: inputs.setdefault(part, given[0]))
    integer(images)
    for part in fused:
        x = inputs[part]
        wanted = site_by_site(monkeypatch, part, x)
        for target in each_target(monkeypatch):
            errors = (part(x) - wanted).flatten(1).norm(dim=1) / (wanted - x).flatten(1).norm(dim=1)
            assert (errors < 1e-5).sum() >= 6, (target, errors)
            assert errors.max() < 0.2, target


@pytest.mark.parametrize("name", SITE_BY_SITE)
def test_other_blocks_run_site_by_site(name):
    kind, options = SITE_BY_SITE[name]
    integer = to_integer(student_of(kind, options, images_for(kind)))
    assert not blocks_of(integer)


@pytest.mark.parametrize("bits", ["w8a8", "w8a4"])
def test_products_of_the_largest_codes_are_exact(monkeypatch, tiny_vit, images, bits):
    """Two products of bytes saturate a sum of 16 bits."""
    require_kernels()
    for part in tiny_vit.modules():
        if isinstance(part, nn.Linear):
            part.weight.data.sign_()
            part.weight.data[0] = 1
    student = calibrate(quantize(tiny_vit, bits=bits), tiny_vit, images, steps=["observe"])
    for part in student.modules():
        if isinstance(part, Uniform) and part.granularity == "tensor":
            part.scale.mul_(1e-3)  # all values lie beyond the ends of the grid
    (first, *_) = blocks_of(to_integer(student))
    x = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(3))
    wanted = site_by_site(monkeypatch, first, x)
    for target in each_target(monkeypatch):
        torch.testing.assert_close(first(x), wanted, rtol=1e-5, atol=1e-5, msg=lambda text, target=target: f"{target}: {text}")


@pytest.mark.parametrize(("top", "size"), [(255, 16), (240, 17), (65, 63), (63, 65), (63, 32), (32, 127), (1, 127)])
@pytest.mark.parametrize("inner", [4, 60, 384])
def test_the_largest_products_that_count_as_small_are_exact(monkeypatch, top, size, inner):
    """Codes and weights at their ends, in the kernels for small products and in the others."""
    require_kernels()
    generator = torch.Generator().manual_seed(4)
    signs = torch.randint(0, 2, (70, inner), generator=generator) * 2 - 1
    signs[0], signs[1], signs[2, ::2], signs[3, 1::2] = 1, -1, 1, -1
    weight = Weight((size * signs).to(torch.int8), torch.ones(70), torch.zeros(70))
    numbers = top * torch.randint(0, 2, (13, inner), generator=generator) - top // 2
    numbers[0], numbers[1] = top - top // 2, -(top // 2)
    found = Range(torch.ones(1), *torch.tensor([[-(top // 2)], [top - top // 2]]).float())
    for target in each_target(monkeypatch):
        general = library.library_for(target)
        assert general.for_products(top * size) is general.small
        for kernels in (general, general.small):
            packed = PackedBlock.__new__(PackedBlock)
            packed.kernels, packed.prefix, packed.kept = kernels, 0, []
            fields = packed._layer(weight, Input(found, None))
            codes = torch.zeros(13 + kernels.tile, inner, dtype=kernels.code_type)
            codes[:13] = numbers + int(fields.from_.zero)
            product = torch.empty(13, 70)
            addresses = map(c_void_p, (codes.data_ptr(), product.data_ptr()))
            kernels.functions.linear(byref(fields), *addresses, c_long(13))
            assert torch.equal(product.long(), numbers @ weight.numbers.long().T), (target, kernels.group)


@pytest.mark.parametrize(
    ("options", "small"),
    [
        ({"bits": "w6a6"}, [True, True, True]),
        ({"bits": "w4a4", "softmax": {"quantizer": "uniform"}}, [True, True, True]),
        ({"bits": "w8a4"}, [True, True, True]),
        ({"bits": "w4a8"}, [False, False, False]),  # attention multiplies 8 by 8 bits
        ({"bits": "w4a4", "overrides": {"*0.mlp.fc1": EIGHT_BITS}}, [False, True, True]),
        ({"bits": "w4a4", "overrides": {"*0.attn.qk": {"bits": 8}}}, [False, True, True]),
        ({"bits": "w4a4", "softmax": {"quantizer": "uniform"}, "overrides": {"*0.attn.av": {"bits": 8}}}, [False, True, True]),
    ],
)
def test_each_block_runs_by_the_kernels_for_its_products(monkeypatch, options, small):
    require_kernels()
    integer = to_integer(student_of("vit", options, images_for("vit")))
    for target in each_target(monkeypatch):
        kernels = library.library_for(target)
        integer(images_for("vit"))
        used = [part._packed.kernels for part in blocks_of(integer)]
        assert used == [kernels.small if each else kernels for each in small], target


def test_instructions_are_those_that_they_are_compiled_for():
    """So that the tests above run the kernels that processors without VNNI or AVX-512 get."""
    require_kernels()
    groups = {name: library.library_for(name).group for name in library.TARGETS}
    assert groups["AVX512 without VNNI"] == groups["AVX2"] == 2
    small = {(library.library_for(name).small.group, library.library_for(name).largest_small) for name in library.TARGETS}
    assert small == {(4, 32767 // 8)}
    panels = {name: library.library_for(name).panel for name in library.TARGETS}
    assert panels["AVX2"] == 16


def test_images_go_through_a_block_together_or_one_by_one(monkeypatch, tiny_vit, images):
    require_kernels()
    (first, *_) = blocks_of(to_integer(calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"])))
    x = torch.randn(5, 17, 32, generator=torch.Generator().manual_seed(3))
    together = first(x)
    for tokens in (1, 34):  # one image, two images and a rest
        monkeypatch.setattr(block, "TOKENS_AT_ONCE", tokens)
        assert torch.equal(first(x), together)
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    several = first(x)
    torch.set_num_threads(threads)
    assert torch.equal(several, together)
    assert torch.equal(first(x.transpose(0, 1).contiguous().transpose(0, 1)), together)
    assert first(x[:0]).shape == (0, 17, 32)


def test_a_block_with_hooks_runs_its_sites(monkeypatch, tiny_vit, images):
    integer = to_integer(calibrate(quantize(tiny_vit, bits="w8a8"), tiny_vit, images, steps=["observe"]))
    (first, *_) = blocks_of(integer)
    x = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(3))
    wanted, seen = site_by_site(monkeypatch, first, x), []
    handle = first.attn.qk.register_forward_hook(lambda *_: seen.append(1))
    assert torch.equal(first(x), wanted) and seen
    handle.remove()
    seen.clear()
    first(x)
    assert not seen


@pytest.mark.gpu
def test_a_student_converted_on_cuda_runs_fused_on_the_cpu(images):
    student = student_of("vit", OPTIONS["w4a4"], images_for("vit"))
    wanted = to_integer(student)(images)
    torch.testing.assert_close(to_integer(student.to("cuda")).to("cpu")(images), wanted, rtol=1e-3, atol=1e-3)


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    """Kernels as on a machine that never compiled them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def written_files(folder: Path) -> dict[Path, int]:
    """When each file below a folder was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def forget() -> None:
    library.library.cache_clear()
    library.library_for.cache_clear()


@pytest.mark.parametrize("compiler", ["no-such-compiler", "false", "'"])
def test_without_a_compiler_sites_run_one_by_one(monkeypatch, caplog, fresh_library, tiny_vit, images, compiler):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(library, "has_vectors", lambda: True)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    integer = to_integer(calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"]))
    assert library.library() is None
    (first, *_) = blocks_of(integer)
    x = torch.randn(2, 17, 32, generator=torch.Generator().manual_seed(3))
    assert torch.equal(first(x), site_by_site(monkeypatch, first, x))
    assert not list(fresh_library.rglob("*.so"))
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")  # for all blocks and passes
    assert "which run site by site" in warning and "\n" not in warning


def test_other_processors_run_sites_one_by_one(monkeypatch, caplog, fresh_library):
    """Nothing can be done about it: nothing is said."""
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "DEFAULT")
    assert library.library() is None and not caplog.records


def test_a_compiler_may_come_with_flags(monkeypatch, fresh_library):
    require_kernels()
    forget()
    monkeypatch.setenv("CC", f"{os.environ.get('CC') or 'cc'} -DOTHER_NAME=1")
    before = set(fresh_library.rglob("*.so"))
    require_kernels()
    assert before and len(set(fresh_library.rglob("*.so")) - before) == len(before)


def test_kernels_are_compiled_once_and_only_when_a_block_runs(monkeypatch, fresh_library, tiny_vit, images):
    integer = to_integer(calibrate(quantize(tiny_vit), tiny_vit, images, steps=["observe"]))
    assert not list(fresh_library.iterdir())
    logits = integer(images)
    require_kernels()
    written = written_files(fresh_library)
    assert written
    forget()
    assert torch.equal(deepcopy(integer)(images), logits)
    assert written_files(fresh_library) == written
