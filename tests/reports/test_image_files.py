"""Synthetic images as files."""

import torch
from PIL import Image

from vitdfq.reports.image_files import save_images


def test_names_hold_index_and_class_and_pixels_are_denormalized(tiny_vit, tmp_path):
    mean, std = (torch.tensor(tiny_vit.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = ((torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1, 1) - mean) / std).expand(3, 3, 32, 32)
    tiny_vit.pretrained_cfg["label_names"] = ["T-shirt/top", "a" * 99]
    paths = save_images(tiny_vit, images, [0, None, 1], tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["0000_0-t-shirt-top.png", "0001.png", f"0002_1-{'a' * 40}.png"]
    colors = [Image.open(path).getpixel((5, 5)) for path in paths]
    assert colors == [(255, 255, 255), (0, 0, 0), (0, 0, 0)]


def test_a_teacher_without_names_gives_the_number(tiny_vit, images, tmp_path):
    tiny_vit.pretrained_cfg.pop("label_names", None)
    assert save_images(tiny_vit, images[:1], [3], tmp_path)[0].name == "0000_3.png"
