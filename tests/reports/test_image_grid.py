"""The grid of synthetic images."""

import torch
from PIL import Image

from vitdfq.reports.image_grid import CELL, MARGIN, save_grid


def test_pixels_are_denormalized(tiny_vit, tmp_path):
    mean, std = (torch.tensor(tiny_vit.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    white_and_black = torch.cat([(1 - mean) / std, (0 - mean) / std]).expand(2, 3, 32, 32)
    save_grid(tiny_vit, white_and_black, tmp_path / "grid.png")
    grid = Image.open(tmp_path / "grid.png")
    middle = MARGIN + CELL // 2
    assert grid.getpixel((middle, middle)) == (255, 255, 255)
    assert grid.getpixel((middle + CELL + MARGIN, middle)) == (0, 0, 0)
