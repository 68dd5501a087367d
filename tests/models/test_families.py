"""Contracts of every family: the facts that it states are names of this model, complete, and nowhere else in the house."""

import ast
from pathlib import Path

import pytest
import timm
import torch
from tiny import TINY, make_tiny
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import vitdfq
from vitdfq.models import FAMILIES, attention_sites, end_sites, family_of, gelu_readers, image_size, norm_readers, projections
from vitdfq.quantization import quantize, sites
from vitdfq.quantization.modules import QuantConv2d, QuantLinear

ROOMS = ("preparation", "quantization", "calibration", "training", "checkpoint/dequantize.py")
PARTS = ("blocks", "layers", "stages", "stem", "patch_embed", "pos_embed", "attn", "qkv", "mlp", "fc1", "fc2", "norm1", "norm2")
PARTS += ("ls1", "ls2", "downsample", "reduction", "bn", "head_dist", "fc_norm", "norm_pre", "token_source")


def run_with_inputs(model: nn.Module, names: list[str]) -> tuple[torch.Tensor, dict[str, torch.Tensor], list[torch.Tensor]]:
    """(images, input of each named module, outputs of all GELUs) of one pass."""
    images = torch.randn(2, 3, *image_size(model), generator=torch.Generator().manual_seed(3))
    inputs, gelus = {}, []
    handles = [
        model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: inputs.update({name: args[0]}))
        for name in names
    ]
    handles += [
        part.register_forward_hook(lambda _, args, output: gelus.append(output))
        for part in model.modules()
        if isinstance(part, nn.GELU | timm.layers.GELU)
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return images, inputs, gelus


def test_each_family_is_listed_under_its_name():
    assert all(name == family.name for name, family in FAMILIES.items())


def test_each_family_is_enrolled():
    assert {family_of(make_tiny(kind)).name for kind in TINY} == set(FAMILIES)


@pytest.mark.parametrize("quantized", [False, True], ids=["teacher", "student"])
def test_facts_name_submodules_of_the_right_kind(teacher, quantized):
    model = quantize(teacher) if quantized else teacher
    layers, family = (QuantLinear | QuantConv2d) if quantized else (nn.Linear | nn.Conv2d), family_of(model)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for site in attention_sites(model):
        assert all(f"{site.name}.{place}" in modules for place in ("qk", "softmax", "av", "class_row"))
    for projection in projections(model):
        written = [rows for rows in (projection.queries, projection.keys, projection.values) if rows is not None]
        names = [rows.linear for rows in written] + ([projection.reader] if projection.reader else [])
        assert all(isinstance(modules[name], layers) for name in names)
        assert all(len(rows.rows) == len(parameters[rows.bias]) for rows in written if rows.bias)
    for site in norm_readers(model):
        assert hasattr(modules[site.norm], "weight") and all(isinstance(modules[name], layers) for name in site.readers)
    for site in family.mlp_sites(model):
        assert site.hidden in modules and isinstance(modules[site.reader], layers)
    for site in family.layer_scales(model):
        assert f"{site.scale}.gamma" in parameters or site.scale in parameters
        assert isinstance(modules[site.writer], layers)
    for site in family.batch_norms(model):
        assert isinstance(modules[site.norm], _BatchNorm) and isinstance(modules[site.layer], layers)
    for stream in family.rotation.streams(model) if family.rotation else []:
        assert all(name in modules for name in stream.writers) and all(name in parameters for name in stream.tokens)
        assert all(isinstance(modules[name], layers) for site in stream.readers for name in site.readers)
    if family.final_norm:
        assert family.final_norm in modules
    if family.token_source:
        assert family.token_source in modules


def test_gelu_readers_read_gelu_and_nothing_else_does(teacher):
    linears = [name for name, part in sites(teacher).items() if isinstance(part, nn.Linear)]
    _, inputs, gelus = run_with_inputs(teacher, linears)
    assert gelu_readers(teacher) == {name for name in linears if any(inputs[name] is output for output in gelus)}
    assert gelu_readers(quantize(teacher)) == gelu_readers(teacher)


def test_one_site_reads_the_image_and_the_heads_write_logits(teacher):
    ends, layers = end_sites(teacher), [name for name, part in sites(teacher).items() if isinstance(part, nn.Linear | nn.Conv2d)]
    images, inputs, _ = run_with_inputs(teacher, layers)
    assert [name for name in layers if inputs[name] is images] == [ends.embedding[0]]
    assert ends.head and {teacher.get_submodule(name).out_features for name in ends.head} == {10}
    assert not set(ends.embedding) & set(ends.head)


def test_every_norm_of_a_batch_is_listed(teacher):
    norms = [name for name, part in teacher.named_modules() if isinstance(part, _BatchNorm)]
    assert [site.norm for site in family_of(teacher).batch_norms(teacher)] == norms


def module_names(path: Path) -> set[str]:
    """Attributes and parts of texts in a source file, without its docstrings."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            names.update(node.value.replace("*", ".").split("."))
    return names


def test_no_room_above_knows_an_architecture_by_the_name_of_a_module():
    package = Path(vitdfq.__file__).parent
    files = [file for room in ROOMS for file in ([package / room] if room.endswith(".py") else (package / room).glob("*.py"))]
    offenders = {str(file.relative_to(package)): sorted(module_names(file) & set(PARTS)) for file in files}
    assert len(files) > 20
    assert {file: names for file, names in offenders.items() if names} == {}
