"""The structure of the package: which room imports which, where third-party packages are used, how large files are."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest
from source import PACKAGE, imported_modules, imports, room, syntax_trees

LAYERS = [  # lowest first; a room imports from lower layers only, not from its neighbors
    {"common", "progress"},
    {"runtime"},
    {"models", "data"},
    {"preparation", "quantization"},
    {"training"},
    {"synthesis"},
    {"calibration"},
    {"evaluation"},
    {"checkpoint", "reports"},
    {"analysis", "hub"},
    {"onnx", "recipe"},
    {"cost"},
    {"workflow"},
    {"cli"},
    {"__main__"},
]
CORE = {"models", "preparation", "quantization", "training", "synthesis", "calibration", "analysis"}  # tensors in, tensors out
CORE_MAY_IMPORT = "vitdfq.runtime.run"  # all that the core knows of how it is run
EVERYWHERE = set().union(*LAYERS)
HOMES = {  # third-party package -> the rooms that import it
    "torch": EVERYWHERE - {"cli", "hub", "recipe"},
    "timm": {"checkpoint", "data", "models", "reports"},
    "einops": {"models"},
    "numpy": {"onnx", "synthesis"},
    "PIL": {"cost", "data", "reports"},
    "typer": {"cli"},
    "jinja2": {"reports"},
    "rich": {"cli", "cost", "reports", "runtime"},
    "pydantic": {"recipe"},
    "yaml": {"recipe"},
    "datasets": {"data"},
    "pyarrow": {"data"},
    "fsspec": {"data"},
    "accelerate": {"common", "runtime"},
    "huggingface_hub": {"common", "data", "hub"},
    "filelock": {"workflow"},
    "safetensors": {"common"},
    "matplotlib": {"reports"},
    "onnx": {"onnx"},
    "onnxruntime": {"onnx"},
    "scipy": {"analysis"},
    "openvino": {"onnx"},
}
MOST_LINES = 300
MODULES = [module for module in syntax_trees() if module != "vitdfq"]  # vitdfq/__init__.py names its parts as text


def listed(offenders: list[str]) -> str:
    distinct = dict.fromkeys(offenders)
    return "\n".join([f"{len(distinct)} offenders:", *distinct])


def test_every_room_has_one_layer():
    rooms = sorted(room(module) for module in MODULES)
    named = sorted(name for layer in LAYERS for name in layer)
    assert sorted(set(rooms)) == named


def test_a_room_imports_from_lower_layers_only():
    levels = {name: level for level, layer in enumerate(LAYERS) for name in layer}
    offenders = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in imported_modules(module)
        if room(name) != room(module) and levels[room(name)] >= levels[room(module)]
    ]
    assert not offenders, listed(offenders)


def test_the_core_does_not_know_how_it_is_run():
    offenders = [
        f"{module}:{line} imports {name}"
        for module in MODULES
        for line, name in imported_modules(module)
        if room(module) in CORE and room(name) == "runtime" and name != CORE_MAY_IMPORT
    ]
    assert not offenders, listed(offenders)


def test_the_core_does_not_print():
    offenders = []
    for module in MODULES:
        if room(module) not in CORE:
            continue
        nodes = list(ast.walk(syntax_trees()[module]))
        prints = [node.lineno for node in nodes if isinstance(node, ast.Name) and node.id == "print"]
        streams = [node.lineno for node in nodes if isinstance(node, ast.Attribute) and node.attr in ("stdout", "stderr")]
        rich = [line for line, name in imports(module) if name.split(".")[0] == "rich"]
        offenders += [f"{module}:{line}" for line in (*prints, *streams, *rich)]
    assert not offenders, listed(offenders)


def test_no_circle_among_files():
    graph = {module: {name for _, name in imported_modules(module)} for module in MODULES}
    circle: list[str] = []
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = error.args[1]  # each module is imported by the next
    assert not circle


def test_each_third_party_package_has_its_homes():
    used, offenders = set(), []
    for module in MODULES:
        for line, name in imports(module):
            package = name.split(".")[0]
            if package == "vitdfq" or package in sys.stdlib_module_names:
                continue
            used.add((package, room(module)))
            if room(module) not in HOMES.get(package, ()):
                offenders.append(f"{module}:{line} imports {name}")
    assert not offenders, listed(offenders)
    unused = [f"{package} in {name}" for package in HOMES if package != "torch" for name in HOMES[package]]
    unused = [text for text in unused if tuple(text.split(" in ")) not in used]
    assert not unused, f"no longer imported, so no home: {', '.join(sorted(unused))}"


def test_files_are_small():
    sizes = {path.relative_to(PACKAGE): len(path.read_text().splitlines()) for path in PACKAGE.rglob("*.py")}
    offenders = [f"{path}: {size} lines" for path, size in sizes.items() if size > MOST_LINES]
    assert not offenders, listed(offenders)


def test_import_is_cheap():
    heavy = "torch, timm, datasets, accelerate, pydantic, rich, huggingface_hub, onnx, onnxruntime"
    code = f"import sys, vitdfq, vitdfq.cli; print(set('{heavy}'.split(', ')) & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.strip() in ("set()", "{'rich'}")  # typer brings rich


def test_public_names_exist():
    import vitdfq

    for name in vitdfq.__all__:
        assert getattr(vitdfq, name) is not None
        assert name in vitdfq.__dict__  # cached: a submodule of the same name cannot take its place
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = vitdfq.nothing
