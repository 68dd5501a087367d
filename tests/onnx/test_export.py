"""Export to ONNX: the file computes what the student computes, in the arithmetic that is promised."""

import importlib.util
import json
import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from tiny import TINY, make_tiny
from torch import Tensor, nn

import vitdfq
from vitdfq.common.errors import ExportError, GateError, InputError
from vitdfq.evaluation import predict
from vitdfq.models import image_size
from vitdfq.quantization import QUANTIZERS
from vitdfq.quantization.quantizers.base import Quantizer
from vitdfq.quantization.quantizers.dynamic import DynamicUniform
from vitdfq.quantization.quantizers.prefix import PrefixUniform

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from vitdfq.onnx import activations, runtime, summary, table, trace  # noqa: E402
from vitdfq.onnx.layout import Layout  # noqa: E402
from vitdfq.onnx.modules import exportable_copy  # noqa: E402

CPU = "avx2"  # the form that every processor multiplies exactly: the other one saturates without VNNI


def make_student(teacher: nn.Module, **options) -> nn.Module:
    """Calibrated on noise; shifts and biases are given values too, as `center` would."""
    rng = torch.Generator().manual_seed(2)
    images = torch.randn(4, 3, *image_size(teacher), generator=rng)
    student = vitdfq.calibrate(vitdfq.quantize(teacher, **options), teacher, images, steps=["observe"])
    for name, buffer in student.named_buffers():
        if name.endswith("_shift"):
            buffer.copy_(0.1 * torch.randn(buffer.shape, generator=rng))
    return student


def initializers(path) -> dict[str, int]:
    return {tensor.name: tensor.data_type for tensor in onnx.load(path).graph.initializer}


BITS = {"layer_scale": "w8a8", "levit": "w6a6", "swin": "w8a8"}
# vit goes through every option below; deit differs from it in its second head only, relpos from beit and swin_v2_cr from swin_v2
# in the origin of their biases, beit from eva and siglip from clip in what is tested elsewhere
SLOW = ("vit", "deit", "relpos", "swin_v2_cr", "beit", "siglip")
FAMILIES = [pytest.param(kind, BITS.get(kind, "w4a4"), marks=[pytest.mark.slow] if kind in SLOW else []) for kind in TINY]
FAMILIES.append(pytest.param("swin", "w6a6", marks=pytest.mark.slow))


@pytest.mark.parametrize(("kind", "bits"), FAMILIES)
def test_the_file_of_every_family_computes_as_the_student(kind, bits, tmp_path):
    teacher = make_tiny(kind)
    student = make_student(vitdfq.prepare(teacher), bits=bits)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    found = vitdfq.export(student, tmp_path / "a/model.onnx", cpu=CPU)
    assert all(torch.equal(before[name], value) for name, value in student.state_dict().items())
    assert found["least_site_sqnr_db"] is None or found["least_site_sqnr_db"] > 60
    data = (tmp_path / "a/model.onnx").read_bytes()
    assert len(data) == found["bytes"] and [path.name for path in (tmp_path / "a").iterdir()] == ["model.onnx"]
    for batch in (1, 3):
        images = torch.randn(batch, 3, *image_size(teacher))
        logits = runtime.outputs(data, images)[0]
        torch.testing.assert_close(logits, student(images), rtol=0, atol=0.05 * student(images).abs().max().item())
    kernels = found["kernels"]
    assert set(kernels["linear"]) == set(kernels["qk"]) == {"integer"}
    assert set(kernels["av"]) == ({"integer"} if bits == "w8a8" else {"float"})
    assert set(kernels["convolution"]) == ({"float"} if kind in ("levit", "any") else {"integer"})  # patches that overlap
    small = [name for name, kind in initializers(tmp_path / "a/model.onnx").items() if kind == onnx.TensorProto.INT4]
    assert bool(small) == (bits == "w4a4") and not any("/" in text for text in paths_in(data))


# levit and any have what vit and swin have not: convolutions that overlap, and products whose heads are unknown
DYNAMIC = [("vit", "w4a4"), ("swin", "w8a8"), *[pytest.param(kind, "w4a4", marks=pytest.mark.slow) for kind in ("levit", "any")]]


@pytest.mark.parametrize(("kind", "bits"), DYNAMIC)
def test_the_file_of_a_dynamic_student_computes_as_the_student(kind, bits, tmp_path):
    student = make_student(vitdfq.prepare(make_tiny(kind)), bits=bits, policy="vitdfq_dynamic")
    found = vitdfq.export(student, tmp_path / "model.onnx", cpu=CPU)
    assert found["least_site_sqnr_db"] > 60 and found["sqnr_db"] > 60
    images = torch.randn(3, 3, *image_size(student))
    logits = runtime.outputs((tmp_path / "model.onnx").read_bytes(), images)[0]
    torch.testing.assert_close(logits, student(images), rtol=0, atol=0.05 * student(images).abs().max().item())
    linear = found["kernels"]["linear"]  # of 8 bits with a zero point for each token no integer kernel is made
    assert (linear["integer"] > linear["weights alone"]) if bits == "w4a4" else "integer" not in linear
    model = onnx.load(tmp_path / "model.onnx")
    assert json.loads({prop.key: prop.value for prop in model.metadata_props}["vitdfq"])["dynamic"]


@pytest.mark.parametrize(("kind", "output"), [("tokens", "features"), ("embedding", "embedding"), ("vit", "logits")])
def test_the_output_has_the_name_of_what_it_is(kind, output, tmp_path):
    student = make_student(make_tiny(kind), bits="w8a8")
    found = vitdfq.export(student, tmp_path / "model.onnx", cpu=CPU)
    graph = onnx.load(tmp_path / "model.onnx").graph
    assert found["output"] == output and [value.name for value in graph.output] == [output]
    assert f"\n{output} " in summary(found) and found["sqnr_db"] > 20
    images = torch.randn(1, 3, *image_size(student))
    assert runtime.outputs((tmp_path / "model.onnx").read_bytes(), images)[0].shape == student(images).shape


def paths_in(data: bytes) -> list[str]:
    model = onnx.load_from_string(data)
    return [note.value for node in model.graph.node for note in node.metadata_props] + [model.doc_string]


class Side(nn.Module):
    """Every quantizer on the same values, their outputs beside each other."""

    def __init__(self, quantizers: list[nn.Module]) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(quantizers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([2 * quantizer(x) for quantizer in self.quantizers], 1)  # doubled: onnxruntime cannot stack codes


def test_every_quantizer_rounds_as_before(monkeypatch):
    """On values of softmax, 0 and 1 among them, and of GELU; a new quantizer is exported, or its refusal names it."""
    monkeypatch.setattr(trace, "image_size", lambda model: (6, 500))
    rng = torch.Generator().manual_seed(3)
    values = torch.rand(2, 3, 6, 500, generator=rng) ** 6
    values.view(-1)[:2] = torch.tensor([0.0, 1.0])
    gelu = nn.functional.gelu(2 * torch.randn(2, 3, 6, 500, generator=rng))
    fitted: list[nn.Module] = []
    for quantizer in (DynamicUniform(4), DynamicUniform(8, symmetric=True), DynamicUniform(4, along="matrix")):
        fitted.append(quantizer)
        quantizer.fit(gelu)
    for name, make in QUANTIZERS.items():
        for bits in (3, 4, 8):
            fitted.append(make(bits))
            fitted[-1].fit(gelu if name == "twin_gelu" else values)
    for quantizer in (*(QUANTIZERS["uniform"](bits, shape=(3, 1, 1)) for bits in (6, 8)), PrefixUniform(4, prefix=2)):
        fitted.append(quantizer)
        fitted[-1].fit(gelu)
    side = Side([activations.exportable(quantizer, signed=i % 2 == 0) for i, quantizer in enumerate(fitted)])
    side.register_parameter("device", nn.Parameter(torch.zeros(1)))
    data = trace.traced(side).SerializeToString()
    for x in (values, gelu):
        outputs = runtime.outputs(data, x)[0].unbind(1)
        for quantizer, found in zip(fitted, outputs, strict=True):
            usable = x >= 0 if not (quantizer(x.clamp(max=0)) < 0).any() else torch.ones_like(x, dtype=torch.bool)
            torch.testing.assert_close(found[usable] / 2, quantizer(x)[usable], rtol=1e-5, atol=1e-30, msg=str(quantizer))
            assert found.unique().numel() > 1


def test_a_table_is_exact():
    """Its boundaries are the last values that a quantizer rounds down, to the last bit."""
    rng = torch.Generator().manual_seed(4)
    quantizer = QUANTIZERS["adalog"](4)
    quantizer.fit(torch.rand(1000, generator=rng) ** 6)
    levels = table.levels_of(quantizer)
    boundaries = table.boundaries_of(quantizer, levels)
    assert torch.equal(quantizer(boundaries), levels[:-1])
    assert torch.equal(quantizer(boundaries.nextafter(torch.tensor(torch.inf))), levels[1:])


class Relative(Quantizer):
    """A grid that depends on the largest value: no table."""

    def fit(self, x: Tensor, *, cost=None) -> None: ...

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.codes(x)) * x.max()

    def codes(self, x: Tensor) -> Tensor:
        return (x / x.max() * 15).round().to(torch.int32)

    def decode(self, codes: Tensor) -> Tensor:
        return codes / 15


class WithoutDecode(Relative):
    """Its levels cannot be listed."""

    def decode(self, codes: Tensor) -> Tensor:
        raise ValueError("codes need their values")


@pytest.mark.parametrize("quantizer", [Relative(4), WithoutDecode(4)], ids=lambda quantizer: type(quantizer).__name__)
def test_a_quantizer_without_onnx_form_is_refused_with_its_site(tiny_vit, quantizer, tmp_path):
    student = make_student(tiny_vit)
    student.get_submodule("blocks.1.attn.av").left_quantizer = quantizer
    with pytest.raises(ExportError, match=rf"blocks.1.attn.av: {type(quantizer).__name__} has no ONNX form"):
        vitdfq.export(student, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A student with everything that an override can say, its folder, and what `export` printed from it."""
    overrides = {
        "blocks.0.attn.qkv": {"activation": {"per_token": True}},
        "blocks.0.attn.qk": {"activation": {"per_head": True}},
        "blocks.0.attn.av": {"softmax": {"quantizer": "twin_softmax", "renormalize": False}},
        "blocks.0.mlp.fc1": {"activation": {"bits": None}},
        "blocks.0.mlp.fc2": {"weight": {"bits": None}, "gelu": {"quantizer": "twin_gelu"}},
        "blocks.1.attn.qkv": {"weight": {"group_size": 16}},
        "blocks.1.attn.qk": {"bits": None},
        "blocks.1.mlp.fc1": {"weight": {"per_channel": False}},
        "blocks.1.mlp.fc2": {"weight": {"group_size": 16, "bits": 3}, "activation": {"bits": None}},
        "blocks.2.attn.qkv": {"bits": None},
        "blocks.2.mlp.fc1": {"weight": {"bits": 5, "symmetric": True}, "activation": {"bits": 2}},
    }
    student = make_student(make_tiny("vit"), overrides=overrides)  # not prepared: twin_gelu wants GELU's own output
    folder = vitdfq.save(student, tmp_path_factory.mktemp("run"))
    command = [sys.executable, "-m", "vitdfq", "export", folder, "--format", "onnx", "--cpu", CPU]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return student, folder, done


def test_every_option_goes_through_the_command(exported):
    student, folder, done = exported
    file = folder / "onnx/model.onnx"
    images = torch.randn(3, 3, 32, 32)
    logits = runtime.outputs(file.read_bytes(), images)[0]
    torch.testing.assert_close(logits, student(images), rtol=0, atol=0.05 * student(images).abs().max().item())
    assert str(file) in done.stdout and "simulated in float" in done.stdout and " as integers" in done.stdout
    assert "3 with packed weights" in done.stdout and not done.stderr.strip()
    types = initializers(file)
    assert types["blocks.1.attn.qkv.weight.codes"] == types["blocks.0.mlp.fc1.weight.codes"] == onnx.TensorProto.INT4
    assert types["blocks.2.mlp.fc1.weight.codes"] == onnx.TensorProto.INT8
    assert types["blocks.0.mlp.fc2.weight.matrix"] == onnx.TensorProto.FLOAT


def test_the_file_says_how_to_make_its_images(exported):
    _, folder, _ = exported
    model = onnx.load(folder / "onnx/model.onnx")
    description = json.loads({prop.key: prop.value for prop in model.metadata_props}["vitdfq"])
    assert description["bits"] == "w4a4" and description["dynamic"]  # one layer is
    assert description["input"]["input_size"] == [3, 32, 32] and len(description["input"]["mean"]) == 3
    assert {value.name for value in model.graph.input} == {"pixel_values"} and model.producer_name == "vitdfq"


@pytest.fixture(scope="module")
def tracing():
    """A student and its graph: tracing takes seconds, the rest of `export` does not."""
    student = make_student(vitdfq.prepare(make_tiny("layer_scale")))
    return student, trace.traced(exportable_copy(student, Layout(cpu=CPU))).SerializeToString()


@pytest.fixture
def traced_before(tracing, monkeypatch) -> nn.Module:
    """A copy of that student, for which `export` to `CPU` uses that graph."""
    monkeypatch.setattr("vitdfq.onnx.build.traced", lambda copy: onnx.load_from_string(tracing[1]))
    return deepcopy(tracing[0])


@pytest.mark.parametrize(
    ("tensor", "site"),
    [
        ("pos_embed", "blocks.0.attn.qkv"),
        ("patch_embed.proj.bias", "patch_embed.proj"),
        ("blocks.0.attn.qk.left_shift", "blocks.0.attn.qk"),
        ("blocks.0.attn.av.right_quantizer.scale", "blocks.0.attn.av"),
        ("blocks.1.mlp.fc1.input_shift", "blocks.1.mlp.fc1"),
        ("head.weight", "head"),
    ],
)
def test_a_file_that_computes_something_else_is_not_written(tensor, site, traced_before, tmp_path):
    value = traced_before.state_dict()[tensor]
    value.view(-1)[:4].add_(1)
    path = tmp_path / "model.onnx"
    path.write_text("old")
    with pytest.raises(GateError, match=rf"onnxruntime's output of {site} is .* dB near the student's") as caught:
        vitdfq.export(traced_before, path, cpu=CPU)
    assert caught.value.exit_code == 5 and path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_not_a_number_is_not_near(traced_before, tmp_path, monkeypatch):
    outputs = runtime.outputs
    monkeypatch.setattr(runtime, "outputs", lambda *given: [x * torch.nan for x in outputs(*given)])
    with pytest.raises(GateError, match=r"output of patch_embed.proj is nan dB"):
        vitdfq.export(traced_before, tmp_path / "model.onnx", cpu=CPU)


def test_without_onnxruntime_nothing_is_promised(traced_before, tmp_path, monkeypatch):
    absent(monkeypatch, "onnxruntime")
    found = vitdfq.export(traced_before, tmp_path / "model.onnx", cpu=CPU)
    assert found["kernels"] is found["sqnr_db"] is None and found["bytes"] == (tmp_path / "model.onnx").stat().st_size
    assert "not installed: neither the logits nor the kernels were checked" in summary(found)


def test_missing_packages_are_named(tiny_vit, tmp_path, monkeypatch):
    absent(monkeypatch, "onnx", "onnxscript")
    with pytest.raises(ExportError, match=r"onnx and onnxscript not installed: pip install 'vitdfq\[onnx\]'") as caught:
        vitdfq.export(make_student(tiny_vit), tmp_path / "model.onnx")
    assert caught.value.exit_code == 2


def absent(monkeypatch, *names: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in names else find(name))


def test_arguments_that_are_refused(tiny_vit, tmp_path):
    student = make_student(tiny_vit)
    with pytest.raises(ValueError, match="unknown export format 'onxn', did you mean 'onnx'"):
        vitdfq.export(student, tmp_path / "a", format="onxn")
    with pytest.raises(ExportError, match="needs the path of a file"):
        vitdfq.export(student)
    with pytest.raises(ExportError, match="is a folder; export writes a file"):
        vitdfq.export(student, tmp_path)
    with pytest.raises(ValueError, match="calibrate the student before exporting it"):
        vitdfq.export(vitdfq.quantize(tiny_vit), tmp_path / "a")
    with pytest.raises(ValueError, match="not this Linear"):
        vitdfq.export(nn.Linear(2, 2), tmp_path / "a")
    with pytest.raises(InputError, match=r"config.json: no such file"):
        vitdfq.export(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_teacher_stays_float(tmp_path):
    teacher = make_tiny("layer_scale")
    found = vitdfq.export(teacher, tmp_path / "float.onnx")
    images = torch.randn(2, 3, *image_size(teacher))
    logits = runtime.outputs((tmp_path / "float.onnx").read_bytes(), images)[0]
    torch.testing.assert_close(logits, teacher(images), rtol=1e-4, atol=1e-4)
    assert found["kernels"] == {}


@pytest.mark.parametrize(("bits", "least"), [pytest.param("w8a8", 99.0, marks=pytest.mark.slow), ("w4a4", 98.0)])
def test_the_zoo_decides_as_its_student(bits, least, tmp_path):
    """Agreement in percent on real images, which calibration has not seen."""
    teacher = vitdfq.load_teacher("zoo:vit")
    prepared = vitdfq.prepare(teacher)
    images = vitdfq.synthesize(teacher, method="noise", num_images=8)
    student = vitdfq.calibrate(vitdfq.quantize(prepared, bits=bits), prepared, images, steps=["observe"])
    vitdfq.export(student, tmp_path / "model.onnx", cpu=CPU)
    expected = predict(student, dataset="zoo:fashion-mnist", num_images=300).logits
    data = (tmp_path / "model.onnx").read_bytes()
    student.forward = lambda x: runtime.outputs(data, x)[0]
    found = predict(student, dataset="zoo:fashion-mnist", num_images=300).logits
    assert not torch.equal(found, expected)
    agreement = (found.argmax(1) == expected.argmax(1)).float().mean().item() * 100
    assert agreement >= least
    assert (found - expected).abs().max() < 0.5 * expected.abs().max()
