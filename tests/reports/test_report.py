import pytest
import torch
from PIL import Image

import vitdfq
from vitdfq.common.errors import GateError
from vitdfq.reports import image_grid, sqnr
from vitdfq.reports.gates import check_alive
from vitdfq.reports.plots import plot_unit_sqnr


def test_grid_is_denormalised(tiny_vit, tmp_path):
    mean, std = (torch.tensor(tiny_vit.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    white_and_black = torch.cat([(1 - mean) / std, (0 - mean) / std]).expand(2, 3, 32, 32)
    image_grid.save_grid(tiny_vit, white_and_black, tmp_path / "grid.png")
    grid = Image.open(tmp_path / "grid.png")
    middle = image_grid.MARGIN + image_grid.CELL // 2
    assert grid.getpixel((middle, middle)) == (255, 255, 255)
    assert grid.getpixel((middle + image_grid.CELL + image_grid.MARGIN, middle)) == (0, 0, 0)


def test_unit_sqnr_names_the_unit_that_hurts(tiny_vit, images):
    student = vitdfq.quantize(tiny_vit, bits="w8a8", overrides={"blocks.1.mlp.fc2": {"bits": 2}})
    vitdfq.calibrate(student, tiny_vit, images, steps=["observe"])
    errors = sqnr.unit_sqnr(student, tiny_vit, images)
    assert list(errors) == ["embed", "blocks.0", "blocks.1", "blocks.2", "head"]
    assert errors["blocks.0"] > 25 and errors["blocks.1"] < errors["blocks.0"] - 8


def test_unit_sqnr_of_the_teacher_itself_is_finite(tiny_vit, images, tmp_path):
    errors = sqnr.unit_sqnr(tiny_vit, tiny_vit, images)
    assert min(errors.values()) > 200
    plot_unit_sqnr(errors, tmp_path / "plot.png")


class Says(torch.nn.Module):
    """A model that always says the same."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        return self.logits[: len(images)]


def test_a_broken_student_does_not_pass():
    images, teacher = torch.zeros(4, 3, 8, 8), Says([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    check_alive(teacher, teacher, images)
    with pytest.raises(GateError, match="not finite"):
        check_alive(Says([[float("nan"), 0.0]] * 4), teacher, images)
    half = Says([[1.0, 0.0]] * 4)
    with pytest.raises(GateError, match=r"agrees with its teacher on 50.0 % .* min_agreement \(55.0\)"):
        check_alive(half, teacher, images)
    check_alive(half, teacher, images, min_agreement=50)
