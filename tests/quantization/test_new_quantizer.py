"""A quantizer as CONTRIBUTING describes it, one class with `fit`, `forward`, `codes` and `decode`, works in every part of the
package without a change there."""

import pytest
import torch
from tiny import make_tiny
from torch import Tensor

import vitdfq
from vitdfq.checkpoint.save_load import describe
from vitdfq.quantization import QUANTIZERS
from vitdfq.quantization.functional import widened
from vitdfq.quantization.integer import integer_report
from vitdfq.quantization.modules import named_sites
from vitdfq.quantization.quantizers.base import Quantizer, require_finite

ROLES = ("weight", "activation", "gelu", "softmax")


# [start:squares]  (the documentation shows this class)
class Squares(Quantizer):
    """Levels ±scale · (k / half)², denser near zero; the scale is the largest magnitude."""

    def __init__(self, bits: int, *, shape: tuple[int, ...] = ()) -> None:
        super().__init__(bits, shape=shape)
        self.half = 2 ** (bits - 1) - 1
        self.register_buffer("scale", torch.tensor(torch.nan))

    @torch.no_grad()
    def fit(self, x: Tensor, *, cost=None) -> None:
        require_finite(x)
        self.scale.copy_(x.abs().max())

    def forward(self, x: Tensor) -> Tensor:
        rounded = self.decode(self.codes(x.detach())).to(x.dtype)
        return rounded + (x - x.detach())

    def codes(self, x: Tensor) -> Tensor:
        steps = (widened(x).abs() / self.scale).sqrt().mul(self.half).round().clamp(max=self.half)
        return (steps * x.sign() + self.half).to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        steps = (codes - self.half) / self.half
        return self.scale * steps * steps.abs()


# [end:squares]


@pytest.fixture(autouse=True)
def squares(monkeypatch):
    monkeypatch.setitem(QUANTIZERS, "squares", Squares)


def everywhere(teacher, images, *, steps=("observe",), **options):
    roles = {role: {"quantizer": "squares"} for role in ROLES}
    return vitdfq.calibrate(vitdfq.quantize(teacher, bits="w6a6", **roles | options), teacher, images, steps=list(steps))


@pytest.mark.parametrize("kind", ["vit", "swin", "levit"])
def test_it_stands_at_every_site_and_survives_a_checkpoint(kind, tmp_path):
    teacher = vitdfq.prepare(make_tiny(kind))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    student = everywhere(teacher, images)
    assert {type(quantizer) for site in named_sites(student).values() for quantizer in site.quantizers.values()} == {Squares}
    wanted = teacher(images)
    assert (student(images) - wanted).square().mean() < 0.1 * wanted.square().mean()
    loaded = vitdfq.load(vitdfq.save(student, tmp_path / "a"))
    assert torch.equal(loaded(images), student(images))
    vitdfq.save(loaded, tmp_path / "b")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {row["weight bits"] for row in describe(tmp_path / "a")["layers"].values()} == {"6", "8"}
    assert vitdfq.load(tmp_path / "a", dequantize=True)(images).isfinite().all()


def test_a_file_may_hold_the_weights_before_they_are_on_the_grid(tiny_vit, images, tmp_path):
    """`save` takes a student whose weights are still rounded at every pass, and stores what they are rounded to."""
    student = everywhere(tiny_vit, images)
    for site in named_sites(student).values():
        if hasattr(site, "weight"):
            site.weight_on_grid = False
            site.weight.mul_(1 + 1e-3)
    assert torch.equal(vitdfq.load(vitdfq.save(student, tmp_path))(images), student(images))


def test_sites_with_it_stay_simulated_and_the_report_says_why(tiny_vit, images):
    student = everywhere(tiny_vit, images, activation=None, gelu=None, weight={"quantizer": "squares", "bits": 4})
    report = integer_report(vitdfq.to_integer(student))
    assert report["simulated"]["blocks.0.mlp.fc1"] == "weight_quantizer: Squares has no int8 form"
    assert report["simulated"]["blocks.0.attn.av"] == "left_quantizer: Squares has no int8 form"
    assert set(report["integer"]) == {f"blocks.{index}.attn.qk" for index in range(3)}
    student = everywhere(tiny_vit, images)
    integer = vitdfq.to_integer(student)
    assert not integer_report(integer)["integer"] and set(integer_report(integer)["simulated"]) == set(named_sites(student))
    torch.testing.assert_close(integer(images), student(images))


@pytest.mark.integration
def test_it_is_exported(tiny_vit, images, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    student = everywhere(tiny_vit, images, gelu={"quantizer": "squares", "bits": 3})
    found = vitdfq.export(student, tmp_path / "model.onnx")
    assert found["least_site_sqnr_db"] is None or found["least_site_sqnr_db"] > 40
    assert found["kernels"]["linear"] == {"float": 13}


def test_every_calibration_step_runs(tiny_vit, images):
    steps = [
        "equalize",
        "equalize_values",
        "reparameterize",
        {"center": {"guarded": False}},
        "observe",
        "gptq",
        {"reconstruct": {"iterations": 2, "rounding": "adaround"}},
        "correct_bias",
        {"distill": {"iterations": 2}},
    ]
    student = everywhere(tiny_vit, images, steps=steps)
    assert student(images).isfinite().all() and not student.blocks[0].mlp.fc1.input_shift.any()  # its steps are not equal


def test_values_that_it_does_not_suit_and_options_that_it_does_not_have_are_refused(tiny_vit, monkeypatch):
    monkeypatch.setattr(Squares, "suits", frozenset({"softmax", "gelu"}))
    with pytest.raises(ValueError, match=r"weight.quantizer 'squares' does not go with weights; choices: uniform"):
        vitdfq.quantize(tiny_vit, weight={"quantizer": "squares"})
    with pytest.raises(ValueError, match=r"does not go with operands of attention; choices: uniform"):
        vitdfq.quantize(tiny_vit, overrides={"*.qk": {"activation": {"quantizer": "squares"}}})
    vitdfq.quantize(tiny_vit, gelu={"quantizer": "squares"}, softmax={"quantizer": "squares"})
    for option in ({"observer": "mse"}, {"symmetric": False}):
        with pytest.raises(ValueError, match=r"softmax\.\w+ \S+ goes with quantizer 'uniform' only, not 'squares'"):
            vitdfq.quantize(tiny_vit, softmax={"quantizer": "squares"} | option)
    monkeypatch.setattr(Squares, "suits", frozenset({"operands", "inputs", "gelu"}))
    for change in ({"per_head": True}, {"per_token": True}, {"dynamic_operands": True}):
        with pytest.raises(ValueError, match=r"activation.(per|dynamic)_\w+ goes with quantizer 'uniform' only, not 'squares'"):
            vitdfq.quantize(tiny_vit, activation={"quantizer": "squares"} | change)
