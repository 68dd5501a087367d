"""`benchmarks/calibration.py` on a model of the zoo: its columns, its real images, and which results are used again."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from pictures import picture, write_folders

import vitdfq
from vitdfq.data import transform_of

SCRIPT = Path(__file__).parents[2] / "benchmarks/calibration.py"
FEW = ("--bits", "w8a8", "--images", "real", "--num-images", "4", "--num-test", "8", "--pipelines", "observe")

pytestmark = pytest.mark.integration


@pytest.fixture
def benchmark(tmp_path, monkeypatch):
    """A function that runs the script with arguments and returns the images that it calibrated on, once for each student."""
    calibrate, calibrated_on = vitdfq.calibrate, []

    def recording(student, prepared, images, **options):
        calibrated_on.append(images)
        return calibrate(student, prepared, images, **options)

    monkeypatch.setattr(vitdfq, "calibrate", recording)

    def run(*arguments: str) -> list[torch.Tensor]:
        calibrated_on.clear()
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *FEW, "--out", str(tmp_path / "out"), *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return list(calibrated_on)

    return run


def test_real_images_come_from_another_set_without_its_labels(benchmark, tmp_path, capsys):
    write_folders(tmp_path / "real")  # of three classes; the model has ten
    (images,) = benchmark("--real", str(tmp_path / "real"))
    transform = transform_of(vitdfq.load_teacher("zoo:deit"))
    numbers = (0, 3, 1, 4)  # in the order of the class folders
    assert torch.equal(images, torch.stack([transform(picture(number)) for number in numbers]))
    table = capsys.readouterr().out.partition("\n\n")[2].partition("\n\n")[2].splitlines()
    assert table[0] == "| bits | images | steps | agreement % | KL | top-1 % | seconds | peak GiB |"
    (result,) = json.loads((tmp_path / "out/results.json").read_text()).values()
    numbers = f"{result['agreement']:.2f} | {result['kl']:.5f} | {result['top1']:.2f}"
    assert table[2].startswith(f"| w8a8 | real | observe | {numbers} |") and result["kl"] > 0


def test_too_few_real_images_are_refused(benchmark, tmp_path):
    write_folders(tmp_path / "real", per_class=1)
    with pytest.raises(SystemExit, match="split train: 3 images, fewer than --num-images"):
        benchmark("--real", str(tmp_path / "real"))


def test_a_result_is_used_again_only_for_the_same_arguments(benchmark, tmp_path):
    write_folders(tmp_path / "real")
    real = ("--real", str(tmp_path / "real"))
    changes = [(), ("--policy", "repq_vit"), ("--split", "validation"), real, (*real, "--num-images", "3")]
    assert [len(benchmark(*change)) for change in (*changes, *changes)] == [1] * len(changes) + [0] * len(changes)
