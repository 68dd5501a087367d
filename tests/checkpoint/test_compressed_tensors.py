"""compressed-tensors, a reader that is not ours, unpacks every layer of ours and gets our weights bit for bit."""

import json
import warnings

import pytest
import torch
from safetensors.torch import load_file
from tiny import make_tiny

import vitdfq
from vitdfq.checkpoint.state_dict import packable, static_inputs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of transformers, which it imports
    pytest.importorskip("compressed_tensors", minversion="0.19")  # earlier ones packed 3, 5, 6 and 7 bits with gaps
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig

GRIDS = {
    "channel": {"symmetric": False},
    "symmetric": {"symmetric": True},
    "group": {"group_size": 16, "symmetric": False},
    "symmetric group": {"group_size": 8, "symmetric": True},
    "tensor": {"per_channel": False, "symmetric": False},
    "symmetric tensor": {"per_channel": False, "symmetric": True},
}


def saved(kind, folder, **policy):
    teacher = make_tiny(kind)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    student = vitdfq.calibrate(vitdfq.quantize(teacher, **policy), teacher, images, steps=["observe"])
    return student, vitdfq.save(student, folder)


def schemes(folder):
    """Their reading of our config.json: layer -> scheme."""
    section = json.loads((folder / "config.json").read_text())["quantization_config"]
    read = QuantizationConfig.model_validate(section)
    assert read.format == "pack-quantized" and read.quant_method == "vitdfq" and read.quantization_status == "compressed"
    found = {target: scheme for scheme in read.config_groups.values() for target in scheme.targets}
    assert not set(found) & set(read.ignore)
    return found, read.ignore


def their_weight(name, tensors, scheme):
    own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.rpartition(".")[0] == name}
    return PackedQuantizationCompressor.decompress(own, scheme)["weight"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_weight_bit_for_bit(bits, grid, tmp_path):
    policy = {"bits": f"w{bits}a8", "weight": GRIDS[grid], "overrides": {"*": {"weight": {"bits": bits}}}}
    student, folder = saved("vit", tmp_path, **policy)
    tensors, (found, ignored) = load_file(folder / "model.safetensors"), schemes(folder)
    assert ignored == [] and set(found) == {name for name, _, _ in packable(student)}
    for name, module, _ in packable(student):
        scheme = found[name]
        assert (scheme.weights.num_bits, scheme.weights.symmetric) == (bits, "symmetric" in grid)
        assert scheme.weights.strategy == grid.removeprefix("symmetric ").replace("symmetric", "channel")
        theirs = their_weight(name, tensors, scheme)
        assert torch.equal(theirs, module.weight.flatten(1)), name  # the patch embedding as (out, in · height · width)


CLIPPED = {"activation": {"per_token": True, "bits": 3, "observer": "mse"}}
DYNAMIC = {"activation": {"per_token": True, "observer": "min_max"}}


def test_inputs_in_their_grammar(tmp_path):
    policy = {
        "bits": "w4a6",
        "overrides": {"*.fc1": {"activation": {"symmetric": True}}, "*.qkv": DYNAMIC, "*.1.attn.qkv": CLIPPED},
    }
    student, folder = saved("swin", tmp_path, **policy)
    tensors, (found, _) = load_file(folder / "model.safetensors"), schemes(folder)
    x = torch.randn(50)
    for name, module, _ in static_inputs(student):
        args, middle = found[name].input_activations, 2 ** (module.input_quantizer.bits - 1)
        assert (args.num_bits, args.strategy, args.dynamic) == (module.input_quantizer.bits, "tensor", False)
        zero_point = tensors.get(f"{name}.input_zero_point", torch.zeros(1, dtype=torch.int8))
        assert zero_point.dtype == torch.int8 and (f"{name}.input_zero_point" in tensors) != args.symmetric
        steps = (x / tensors[f"{name}.input_scale"]).round() + zero_point
        expected = (steps.clamp(-middle, middle - 1) - zero_point) * tensors[f"{name}.input_scale"]
        assert torch.equal(module.input_quantizer(x), expected)
    qkv = found["layers.0.blocks.0.attn.qkv"].input_activations
    assert (qkv.strategy, qkv.dynamic) == ("token", True) and "layers.0.blocks.0.attn.qkv.input_scale" not in tensors
    clipped = "layers.0.blocks.1.attn.qkv"  # they know no share of a range
    assert tensors[f"{clipped}.input_quantizer.clip"] < 1 and found[clipped].input_activations is None


def test_grids_outside_their_types_are_left_out(tmp_path):
    _, folder = saved("vit", tmp_path, policy="ptq4vit", overrides={"blocks.0.*": {"weight": {"bits": None}}})
    found, ignored = schemes(folder)
    assert found["blocks.1.mlp.fc2"].input_activations is None  # two grids for GELU
    assert set(ignored) == {f"blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    section = json.loads((folder / "config.json").read_text())["quantization_config"]
    assert section["modules_to_not_convert"] == ignored
