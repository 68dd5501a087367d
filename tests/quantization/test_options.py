"""What arguments of `quantize` may say: the spelling of bits, options of roles, and weights alone."""

import json

import pytest
import torch
from tiny import TINY, make_tiny

import vitdfq
from vitdfq.calibration.efforts import default_steps
from vitdfq.models import image_size
from vitdfq.preparation import prepare
from vitdfq.quantization import POLICIES, quantize, sites
from vitdfq.quantization.integer import integer_report
from vitdfq.quantization.modules import bits_of, named_sites
from vitdfq.quantization.options import SPELLINGS, Grid, OptionError, bits_name, parse_bits
from vitdfq.quantization.policy import Places, check_quantize

WEIGHTS = range(2, 9)
ACTIVATIONS = {**{str(bits): bits for bits in range(2, 9)}, "16": None, "32": None}


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_spelling(weight, activation):
    spelling = f"w{weight}a{activation}"
    assert spelling in SPELLINGS and parse_bits(spelling) == (weight, ACTIVATIONS[activation])
    assert bits_name(*parse_bits(spelling)) == spelling.replace("a32", "a16")
    check_quantize({"bits": spelling})


def test_there_are_63_spellings_and_the_usual_ones_are_among_them():
    assert len(set(SPELLINGS)) == 63


@pytest.mark.parametrize(
    ("bits", "meant"),
    [
        ("int8", "w8a8"),
        ("INT4", "w4a4"),
        ("8bit", "w8a8"),
        ("4bit", "w4a4"),
        ("w4", "w4a16"),
        ("W4A4", "w4a4"),
        ("w4-a8", "w4a8"),
        ("4/8", "w4a8"),
        ("w4a", "w4a4"),
        ("w4a4 ", "w4a4"),
        (4, "w4a4"),
        ("w9a4", "w8a4"),
        ("w1a16", "w8a16"),
    ],
)
def test_another_spelling_is_answered_with_the_grammar_and_a_guess(bits, meant):
    with pytest.raises(ValueError) as caught:
        parse_bits(bits)
    message = str(caught.value)
    assert message.startswith(f"unknown bits {bits!r}, did you mean {meant!r}?; choices: w<2-8>a<2-8|16|32>: ")
    assert message.endswith("for example w4a4, w8a8 or w4a16") and "\n" not in message


@pytest.mark.parametrize("bits", ["fp16", "bf16", "", None, ["w4a4"], 4.5, "x" * 5000])
def test_where_nothing_is_near_no_guess_is_made(bits):
    with pytest.raises(ValueError, match="unknown bits ") as caught:
        parse_bits(bits)
    assert "did you mean" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("arguments", "keys", "reason"),
    [
        ({"bit": "w4a4"}, ("bit",), "unknown key, did you mean 'bits'?; choices: bits, policy, "),
        ({"bits": "w4"}, ("bits",), "unknown bits 'w4', did you mean 'w4a16'?"),
        ({"policy": "vitdfg"}, ("policy",), "unknown quantization policy 'vitdfg', did you mean 'vitdfq'?"),
        ({"policy": {}}, ("policy",), "unknown quantization policy {}; choices: "),
        ({"weight": 4}, ("weight",), "4 is not a mapping of options"),
        ({"weight": {"bits": True}}, ("weight", "bits"), "bits is True; choices: 2 to 8, or null for float"),
        ({"weight": {"per_token": True}}, ("weight", "per_token"), "unknown key; choices: bits, quantizer, "),
        ({"weight": {"group_size": 0}}, ("weight", "group_size"), "group_size is 0; expected a whole number of at least 1"),
        ({"weight": {"symmetric": None}}, ("weight", "symmetric"), "symmetric is None; expected true or false"),
        ({"activation": {"observer": ["mse"]}}, ("activation", "observer"), "unknown observer ['mse']; choices: "),
        ({"softmax": {"renormalize": "yes"}}, ("softmax", "renormalize"), "renormalize is 'yes'; expected true or false"),
        ({"gelu": {"quantizer": "twin"}}, ("gelu", "quantizer"), "unknown quantizer 'twin', did you mean 'twin_gelu'?"),
        ({"overrides": []}, ("overrides",), "[] is not a mapping of globs"),
        ({"overrides": {"*": 8}}, ("overrides", "*"), "8 is not a mapping of options"),
        ({"overrides": {"*": {"bits": 1}}}, ("overrides", "*", "bits"), "bits is 1; choices: 2 to 8"),
        ({"overrides": {"*": {"weigth": {}}}}, ("overrides", "*", "weigth"), "unknown key, did you mean 'weight'?"),
        ({"overrides": {"*": {"gelu": {"bits": 9}}}}, ("overrides", "*", "gelu", "bits"), "bits is 9; choices: 2 to 8"),
    ],
)
def test_an_error_has_the_path_the_value_and_the_choices(arguments, keys, reason):
    with pytest.raises(OptionError) as caught:
        check_quantize(arguments)
    assert caught.value.keys == keys and caught.value.reason.startswith(reason)
    assert str(caught.value) == f"{'.'.join(keys)}: {caught.value.reason}"


@pytest.mark.parametrize("value", ["a" * 5000, 10**30, [[[]]], {"a": "b" * 5000}])
def test_values_of_a_stranger_make_short_messages(value):
    for arguments in (
        *({name: value} for name in ("bits", "policy", "weight", "overrides")),
        {"weight": {"quantizer": value, "bits": 4}},
        {"weight": {"group_size": value, "observer": value}},
        {"overrides": {"x" * 5000: value}},
        {"x" * 5000: 1},
    ):
        with pytest.raises(OptionError) as caught:
            check_quantize(arguments)
        assert len(str(caught.value)) < 700


def test_a_grid_is_checked_where_it_is_made():
    with pytest.raises(ValueError, match="bits is 9; choices: 2 to 8"):
        Grid(9)
    with pytest.raises(ValueError, match="unknown quantizer 'log3', did you mean 'log2'"):
        Grid(4, "log3")
    with pytest.raises(ValueError, match="group_size is 0; expected a whole number"):
        Grid(4).changed({"group_size": 0})


def test_a_quantizer_drops_the_earlier_options_that_it_does_not_have():
    grid = Grid(4, symmetric=True, observer="percentile", per_head=True, renormalize=True)
    assert grid.changed({"quantizer": "log2"}) == Grid(4, "log2", renormalize=True)
    assert grid.changed({"quantizer": "log2", "symmetric": False}) == Grid(4, "log2", symmetric=False, renormalize=True)
    assert grid.changed({"quantizer": "uniform"}) == grid and grid.changed({"bits": None}).bits is None


@pytest.mark.parametrize("kind", sorted(TINY))
@pytest.mark.parametrize("prepared", [False, True])
def test_the_ends_of_a_model_are_its_first_and_last_unit(kind, prepared):
    """The names that policies used before the chain of units answered."""
    model = vitdfq.prepare(make_tiny(kind)) if prepared else make_tiny(kind)
    names = list(sites(model))
    places = Places.of(model)
    assert places.ends == {name for name in names if name.startswith(("patch_embed.proj", "stem.", "head"))}
    assert places.image == {name for name in names if name in ("patch_embed.proj", "stem.conv1.linear")}
    assert places.gelu == {name for name in names if name.endswith(".fc2")}


@pytest.mark.parametrize("policy", sorted(POLICIES))
@pytest.mark.parametrize("bits", ["w4a16", "w4a32"])
def test_weights_alone_leave_every_activation_in_float(policy, bits):
    student = quantize(make_tiny("levit"), bits=bits, policy=policy)
    assert bits_of(student) == {"weight_bits": 4, "activation_bits": None}
    operands = [quantizer for site in named_sites(student).values() for quantizer in site.operand_quantizers.values()]
    assert {quantizer.bits for quantizer in operands} == {None}
    ends = {student.get_submodule(name).weight_quantizer.bits for name in ("stem.conv1.linear", "head.linear")}
    assert ends == ({8} if policy in ("vitdfq", "vitdfq_dynamic", "openvino", "tensorrt") else {4})


def test_a_role_may_bring_activations_back(tiny_vit):
    student = quantize(tiny_vit, bits="w4a16", activation={"bits": 8}, overrides={"head": {"activation": {"bits": 6}}})
    assert student.blocks[0].mlp.fc1.input_quantizer.bits == student.patch_embed.proj.input_quantizer.bits == 8
    assert student.head.input_quantizer.bits == 6 and student.blocks[0].attn.av.left_quantizer.bits is None


@pytest.mark.parametrize("kind", ["deit", "swin"])
@pytest.mark.parametrize("bits", ["w4a16", "w3a32"])
def test_weights_alone_from_calibration_to_a_checkpoint(kind, bits, tmp_path):
    teacher = vitdfq.prepare(make_tiny(kind))
    images = torch.randn(8, 3, *image_size(teacher), generator=torch.Generator().manual_seed(0))
    student = quantize(teacher, bits=bits)
    steps = default_steps(student)
    assert "center" not in steps and steps[:2] == ["observe", "gptq"]
    observed = vitdfq.calibrate(quantize(teacher, bits=bits), teacher, images, steps=["observe"])
    vitdfq.calibrate(student, teacher, images, steps=steps[:2])
    wanted = teacher(images)
    errors = [(model(images) - wanted).square().mean() / wanted.square().mean() for model in (student, observed)]
    assert errors[0] < errors[1] < 0.1
    loaded = vitdfq.load(vitdfq.save(student, tmp_path))
    assert torch.equal(loaded(images), student(images)) and loaded.vitdfq["quantize"]["bits"] == bits
    groups = json.loads((tmp_path / "config.json").read_text())["quantization_config"]["config_groups"]
    assert {group["input_activations"] for group in groups.values()} == {None}
    integer = vitdfq.to_integer(student)
    report = integer_report(integer)
    assert not report["integer"] and set(report["simulated"]) == set(named_sites(student))
    assert set(report["simulated"].values()) == {"input_quantizer is float", "left_quantizer is float"}
    torch.testing.assert_close(integer(images), student(images))


@pytest.mark.integration
def test_weights_alone_in_onnx(tiny_vit, images, tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    student = vitdfq.calibrate(quantize(tiny_vit, bits="w4a16"), tiny_vit, images, steps=["observe"])
    found = vitdfq.export(student, tmp_path / "model.onnx")
    linear = found["kernels"]["linear"]
    assert linear["weights alone"] >= 12 and sum(linear.values()) == 13 and "integer" not in linear  # the head has 8 bits
    assert found["kernels"]["qk"] == found["kernels"]["av"] == {"float": 3}
    graph = onnx.load(tmp_path / "model.onnx").graph
    small = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT4}
    read = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"} & small
    assert len(read) == 12  # four bits up to the product: kernels for weights alone match that pattern


@pytest.mark.parametrize("role", ["weight", "activation", "gelu", "softmax"])
def test_the_choices_of_a_role_are_taken(role, tiny_vit):
    prepared = prepare(tiny_vit, steps=[])  # twin_gelu does not go with a rotated MLP
    with pytest.raises(ValueError, match="unknown quantizer") as caught:
        quantize(prepared, bits="w4a4", **{role: {"quantizer": "nothing"}})
    for name in str(caught.value).partition("choices: ")[2].split(", "):
        quantize(prepared, bits="w4a4", **{role: {"quantizer": name}})
