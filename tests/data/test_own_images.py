"""Images of the user's own: what is read, what is refused, and in which words."""

import pytest
import torch
from pictures import picture, write_folders
from PIL import Image
from safetensors.torch import save_file

from vitdfq.common.errors import InputError
from vitdfq.data import read_own_images, transform_of


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in (2, 0, 1):
        picture(number).save(folder / f"{number}.png")
    return folder


def saved(path, **tensors):
    save_file(tensors, path)
    return path


def test_a_folder_is_read_in_the_order_of_names_and_transformed_as_the_teacher_expects(tiny_vit, pictures):
    images = read_own_images(tiny_vit, pictures, 2)
    expected = torch.stack([transform_of(tiny_vit)(Image.open(pictures / f"{number}.png")) for number in (0, 1)])
    assert torch.equal(images, expected)


def test_class_folders_are_read_without_their_labels(tiny_vit, tmp_path):
    write_folders(tmp_path / "classes")
    assert read_own_images(tiny_vit, str(tmp_path / "classes"), 6).shape == (6, 3, 32, 32)


def test_a_safetensors_file_is_taken_as_it_is(tiny_vit, images, tmp_path):
    other = torch.zeros(1)
    for file in (saved(tmp_path / "run.safetensors", images=images, other=other), saved(tmp_path / "one.safetensors", x=images)):
        assert torch.equal(read_own_images(tiny_vit, file, 3), images[:3])


def test_what_is_missing_or_too_little_is_one_line(tiny_vit, pictures, images, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.png").write_bytes(b"")
    two = saved(tmp_path / "two.safetensors", a=images, b=images.clone())
    for path, message in (
        (tmp_path / "absent", "absent: no such file or folder"),
        (tmp_path / "photo.png", "neither a folder of image files nor a .safetensors file"),
        (pictures, "holds 3 images, num_images is 32: lower it, or add images"),
        (two, "holds 2 tensors, none of them called 'images'"),
        (tmp_path / "empty", "empty"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            read_own_images(tiny_vit, path, 32)
        assert "\n" not in str(caught.value)
