"""Fixtures for every test."""

import logging
import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub: the default suite has no network
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side, a process a core

import json
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import TINY, make_tiny

import vitdfq.synthesis
from vitdfq import cli
from vitdfq.models import image_size

# Folders and files whose tests run the real command, read the zoo, write ONNX, or calibrate or train from end to end. Single
# tests elsewhere say `integration`.
INTEGRATION = (
    *("analysis", "calibration", "checkpoint", "cost", "hub", "onnx", "workflow"),
    *("test_bad_input.py", "test_cli.py", "test_layers.py", "test_zoo.py"),
    *("data/test_imagenet.py", "data/test_readers.py", "runtime/test_launch.py", "training/test_batch_sharding.py"),
    *("quantization/test_integer.py", "quantization/test_integer_compiled.py", "quantization/test_integer_fused.py"),
    "quantization/test_integer_fused_twin.py",
    *("quantization/test_new_quantizer.py", "quantization/test_policies.py"),
    *("synthesis/generator/test_train.py", "synthesis/test_mix.py", "synthesis/test_synthesize.py"),
    "models/test_from_module.py",
)
NOT_UNIT = ("integration", "slow", "gpu", "hub")
FOLDER_ARGUMENTS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test `unit` or `integration`."""
    tests = Path(__file__).parent
    for item in items:
        folder_or_file = item.path.relative_to(tests)
        if any(folder_or_file.is_relative_to(name) for name in INTEGRATION):
            item.add_marker(pytest.mark.integration)
        if not any(item.get_closest_marker(name) for name in NOT_UNIT):
            item.add_marker(pytest.mark.unit)
    # Files that take longest begin first, so that no process is left alone with one of them at the end.
    items.sort(key=lambda item: not any(item.path.relative_to(tests).is_relative_to(name) for name in INTEGRATION))


def refuse_in_unit_tests(event: str, args: tuple) -> None:
    """An audit hook: a test that takes seconds must not pass for a unit test."""
    global running_unit_test
    if running_unit_test and (
        (event == "subprocess.Popen" and args[0] != "fc-list")  # matplotlib lists the fonts, once on each machine
        or (event == "open" and "/vitdfq/zoo/" in str(args[0]))
        or (event == "import" and args[0] in ("onnx", "onnxruntime", "onnxscript"))
    ):
        test, running_unit_test = running_unit_test, ""  # so that the failure itself can be reported
        pytest.fail(f"{test} is marked unit but does {event} {args[0]}; mark it @pytest.mark.integration")


running_unit_test = ""
sys.addaudithook(refuse_in_unit_tests)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    global running_unit_test
    running_unit_test = item.nodeid if item.get_closest_marker("unit") else ""
    try:
        return (yield)
    finally:
        running_unit_test = ""


@pytest.fixture
def command(capsys, monkeypatch):
    """Run the command in this process: (exit code, stdout, stderr)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vitdfq", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(params=sorted(TINY))
def teacher(request) -> torch.nn.Module:
    return make_tiny(request.param)


@pytest.fixture
def tiny_vit() -> torch.nn.Module:
    return make_tiny("vit")


@pytest.fixture
def images(request) -> torch.Tensor:
    """Eight images (8, 3, R, R) that fit the test's teacher."""
    model = request.getfixturevalue("teacher" if "teacher" in request.fixturenames else "tiny_vit")
    return torch.randn(8, 3, *image_size(model), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def validation_images_rendered_once(monkeypatch, held_out_images):
    """The same 32 procedural images validate every training of a teacher of one image size: half a second each time."""

    def synthesize(teacher: torch.nn.Module, **options: object) -> torch.Tensor:
        key = (*(str(teacher.pretrained_cfg.get(name)) for name in ("input_size", "mean", "std")), *options.items())
        if key not in held_out_images:
            held_out_images[key] = vitdfq.synthesis.synthesize(teacher, **options)
        return held_out_images[key].clone()

    monkeypatch.setattr("vitdfq.calibration.held_out.synthesize", synthesize)


@pytest.fixture(scope="session")
def held_out_images() -> dict[tuple, torch.Tensor]:
    return {}


@pytest.fixture(autouse=True)
def small_pools(monkeypatch):
    """Painting takes milliseconds an image: choose from pools of 64, not of 512."""
    monkeypatch.setattr("vitdfq.synthesis.image_selection.farthest_point.BLOCK", 4)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder as timm writes them: a tiny ViT with random weights in half precision."""
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, **FOLDER_ARGUMENTS)
    path = tmp_path / "tiny"
    path.mkdir()
    halves = {name: value.half() for name, value in model.state_dict().items()}
    save_file(halves, path / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 5,
        "model_args": FOLDER_ARGUMENTS,
        "pretrained_cfg": {
            "tag": "toy",
            "input_size": [3, 32, 32],
            "fixed_input_size": True,
            "mean": [0.25, 0.25, 0.25],
            "std": [0.5, 0.5, 0.5],
            "num_classes": 5,
            "classifier": "head",
            "label_names": ["a", "b", "c", "d", "e"],
            "license": "apache-2.0",
        },
    }
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(autouse=True)
def library_logger():
    """The library's messages reach `caplog`; the command line's set-up of the logger ends with the test."""
    logger = logging.getLogger("vitdfq")
    before = list(logger.handlers), logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])
