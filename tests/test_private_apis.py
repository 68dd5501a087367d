"""What the package needs of other packages beyond their documentation: a release that moves it is one red line here."""

import ast
import importlib.util
import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator

import timm
import torch
from datasets import IterableDataset
from source import imports, room, syntax_trees
from torch import nn

PRIVATE = {  # name -> the rooms that use it
    "os._exit": {"runtime"},  # documented, private by its name alone
    "timm.models._builder.build_model_with_cfg": {"models"},
    "timm.models._hub.save_config_for_hf": {"checkpoint", "models"},
    "torch.nn.Conv2d._conv_forward": {"models"},
    "torch._int_mm": {"quantization"},
    "torch.cpu._is_amx_tile_supported": {"common"},
    "torch.cpu._is_avx512_bf16_supported": {"common"},
    "torch.nn.modules.module._global_forward_hooks_with_kwargs.pop": {"models"},
    "torch.nn.modules.batchnorm._BatchNorm": {"checkpoint", "models", "preparation"},
    "torch.ops.onednn.qlinear_pointwise": {"quantization"},
    "torch.ops.onednn.qlinear_prepack": {"quantization"},
    "torch.utils._python_dispatch.TorchDispatchMode": {"models"},
    "torch.utils._pytree.tree_leaves": {"models"},
}
ATTRIBUTES = {  # attribute of objects -> (one that must have it, the rooms that use it)
    "_apply": (nn.Module(), {"quantization"}),  # overridden
    "_backward_hooks": (nn.Module(), {"models"}),
    "_backward_pre_hooks": (nn.Module(), {"models"}),
    "_forward_hooks": (nn.Module(), {"models", "quantization", "synthesis"}),
    "_forward_pre_hooks": (nn.Module(), {"models"}),
    "_non_persistent_buffers_set": (nn.Module(), {"models"}),
    "_pos_embed": (timm.models.VisionTransformer, {"models"}),
    "_resolve_features": (IterableDataset, {"data"}),
}
NOT_IN_TESTS = ("openvino",)  # the extra `test` does not install it; checked where it stands
OVERRIDABLE = {name for name in dir(nn.Module) if name.startswith("_") and not name.startswith("__")}


def find(name: str) -> object:
    """The object of a dotted name: its longest importable beginning, then attributes."""
    module, attributes = name, []
    while True:
        try:
            value = importlib.import_module(module)
            break
        except ModuleNotFoundError:
            module, _, attribute = module.rpartition(".")
            attributes.insert(0, attribute)
            if not module:
                raise
    for attribute in attributes:
        value = getattr(value, attribute)
    return value


def missing(names: Iterable[str]) -> list[str]:
    problems = []
    for name in sorted(names):
        try:
            find(name)
        except (ImportError, AttributeError) as error:
            problems.append(f"{name}: {error}")
    return problems


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def names_of_other_packages(module: str) -> Iterator[str]:
    """What a module imports, and attributes of that, by full name: "timm.create_model", "torch.ops.onednn.qlinear_prepack"."""
    aliases = {}  # name in the module -> full name
    for node in ast.walk(syntax_trees()[module]):
        if isinstance(node, ast.Import):
            aliases |= {alias.asname or alias.name.split(".")[0]: alias.asname and alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            aliases |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    used = {name for _, name in imports(module)}
    for node in ast.walk(syntax_trees()[module]):
        if isinstance(node, ast.Attribute):
            first, *rest = ast.unparse(node).split(".")
            if first in aliases and all(part.isidentifier() for part in rest):
                used.add(".".join([aliases[first] or first, *rest]))
    yield from (name for name in used if name.split(".")[0] != "vitdfq")


def names_the_package_defines() -> set[str]:
    """Functions, classes, variables and attributes that it sets."""
    names = set()
    for tree in syntax_trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                names.add(node.attr)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
    return names


def differences(used: dict[str, set[str]], listed: dict[str, set[str]]) -> list[str]:
    pairs = [{(name, room) for name, rooms in table.items() for room in rooms} for table in (used, listed)]
    unlisted, unused = pairs[0] - pairs[1], pairs[1] - pairs[0]
    return sorted(f"{name} is used in {room}: list it" for name, room in unlisted) + sorted(
        f"{name} is no longer used in {room}: take it off the list" for name, room in unused
    )


def test_private_names_exist():
    absent = [f"{owner}.{name}" for name, (owner, _) in ATTRIBUTES.items() if not hasattr(owner, name)]
    problems = missing(PRIVATE) + absent
    assert not problems


def test_every_imported_name_exists():
    """Those inside functions too, which otherwise fail when a user comes that way."""
    names = {name for module in syntax_trees() for _, name in imports(module)}
    absent = {package for package in NOT_IN_TESTS if importlib.util.find_spec(package) is None}
    assert not missing(name for name in names if name.split(".")[0] not in absent)


def test_private_functions_take_the_arguments_they_are_called_with():
    schemas = [torch.ops.onednn.qlinear_prepack.default._schema, torch.ops.onednn.qlinear_pointwise.default._schema]
    assert [[argument.name for argument in schema.arguments] for schema in schemas] == [
        ["weight", "x_shape"],
        [
            *("qx", "x_scale", "x_zero_point", "qw", "w_scale", "w_zero_point", "bias", "output_scale", "output_zero_point"),
            *("output_dtype", "post_op_name", "post_op_args", "post_op_algorithm"),
        ],
    ]
    build = inspect.signature(find("timm.models._builder.build_model_with_cfg"))
    assert {"pretrained", "pretrained_strict", "kwargs"} <= set(build.parameters)  # read by models.untrusted
    save = inspect.signature(find("timm.models._hub.save_config_for_hf"))
    assert list(save.parameters)[:4] == ["model", "config_path", "model_config", "model_args"]


def test_private_names_in_use_are_listed():
    """`torch._name`, `from timm._name import ...`, `torch.ops.library.name`."""
    used = defaultdict(set)
    for module in syntax_trees():
        names = list(names_of_other_packages(module))
        for name in names:
            parts = name.split(".")
            private = any(map(is_private, parts)) or (parts[:2] == ["torch", "ops"] and len(parts) == 4)
            if private and not any(other.startswith(f"{name}.") for other in names):
                used[name].add(room(module))
    assert not differences(used, PRIVATE)


def test_private_attributes_in_use_are_listed():
    """`model._name` that no file of the package defines, and private methods of `nn.Module` that one overrides."""
    used, ours = defaultdict(set), names_the_package_defines() | {name.rpartition(".")[2] for name in PRIVATE}
    for module, tree in syntax_trees().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in ours:
                used[node.attr].add(room(module))
            elif isinstance(node, ast.FunctionDef) and node.name in OVERRIDABLE:
                used[node.name].add(room(module))
    assert not differences(used, {name: rooms for name, (_, rooms) in ATTRIBUTES.items()})
