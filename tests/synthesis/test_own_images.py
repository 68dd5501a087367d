"""Images of the user's own in place of synthetic ones; reading them is tested in tests/data/test_own_images.py."""

import pytest
import torch
from safetensors.torch import save_file

from vitdfq.synthesis import synthesize
from vitdfq.synthesis.options import SynthesisOptions


def test_images_of_a_file_take_the_place_of_synthetic_ones(tiny_vit, images, tmp_path):
    save_file({"images": images}, tmp_path / "images.safetensors")
    assert torch.equal(synthesize(tiny_vit, images=tmp_path / "images.safetensors", num_images=3), images[:3])


def test_pixels_that_are_not_normalized_are_refused(tiny_vit, tmp_path):
    save_file({"images": torch.rand(4, 3, 32, 32) * 255}, tmp_path / "raw.safetensors")
    with pytest.raises(ValueError, match="not normalized"):
        synthesize(tiny_vit, images=tmp_path / "raw.safetensors", num_images=4)


@pytest.mark.parametrize("options", [{"steps": 3}, {"method": "psaq"}, {"losses": {}, "mix": {"psaq": 0.5}}], ids=str)
def test_options_of_synthetic_images_are_refused_beside_them(options):
    with pytest.raises(ValueError, match=f"read, not synthesized, so leave out {', '.join(options)}"):
        SynthesisOptions(images="pictures", **options)


def test_their_method_is_called_own():
    options = SynthesisOptions(images="pictures", num_images=3, seed=1)
    assert options.method == "own" and options.resolved().steps == 0
    assert SynthesisOptions(images="pictures", method="own") == SynthesisOptions(images="pictures")
