"""Bad input through the real command: one line, the right exit code, nothing lost."""

import pytest
import timm
import torch
import yaml
from safetensors.torch import save_file
from tiny import TINY

RECIPE = {
    "name": "bad",
    "model": {"name": "zoo:vit"},
    "synthesize": {"method": "noise", "num_images": 2},
    "calibrate": {"steps": ["observe"]},
    "evaluate": {"dataset": "zoo:fashion-mnist", "split": "test", "num_images": 20},
}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return tmp_path


@pytest.fixture
def refuse(command, folder):
    """Run the recipe with overrides; return its one line on stderr."""

    def run(*overrides, code):
        arguments = ("run", folder / "bad.yaml", "--out", folder / "out", *[f"--set={text}" for text in overrides])
        exit_code, out, err = command(*arguments)
        lines = err.strip().splitlines()
        assert exit_code == code and not out, err
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:] and "Traceback" not in err
        return lines[-1]

    return run


def model_folder(path, classes=10):
    """A tiny timm local-dir folder."""
    architecture, kwargs = TINY["vit"]
    model = timm.create_model(architecture, num_classes=classes, **kwargs)
    path.mkdir()
    timm.models.save_for_hf(model, path, model_args=kwargs, safe_serialization=True)
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quantize.overrides={'block.*': {bits: 8}}", "'block.*' matches no site; sites look like patch_embed.proj"),
        ("quantize.bits=w4a9", "unknown"),
        ("quantize.weight.bits=16", "bits is 16; choices: 2 to 8"),
        ("synthesize.num_images=many", "num_images"),
        ("synthesize.lr=1e-3", "is text to YAML"),
        ("synthesize.metod=noise", "did you mean 'method'?"),
        ("model.name=resnet50", "vitdfq/models/"),
        ("model.name=zoo:vti", "did you mean 'vit'?"),
    ],
)
def test_what_the_recipe_says_cannot_be(refuse, folder, override, message):
    assert message in refuse(override, code=3)
    assert not (folder / "out").exists()


def test_damaged_weights(refuse, folder):
    path = model_folder(folder / "model")
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert f"{weights}: damaged or truncated" in refuse(f"model.name=local-dir:{path}", code=2)


def test_a_pickle_is_never_opened(refuse, folder):
    path = model_folder(folder / "model")
    marker = folder / "ran"

    class Trap:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"x": Trap()}, path / "model.safetensors")
    assert "is a pickle" in refuse(f"model.name=local-dir:{path}", code=2)
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    assert "pickle" in refuse(f"model.name=local-dir:{path}", code=2)
    assert not marker.exists()


def test_dataset_of_another_number_of_classes(refuse, folder):
    path = model_folder(folder / "model", classes=7)
    assert "has 10 classes, the model has 7" in refuse(f"model.name=local-dir:{path}", code=3)
    assert not list(folder.glob("out/*images*"))


def test_dataset_without_the_columns(refuse, folder):
    from datasets import Dataset

    (folder / "data").mkdir()
    Dataset.from_dict({"picture": [1], "label": [0]}).to_parquet(folder / "data/test.parquet")
    line = refuse(f"evaluate.dataset={folder / 'data'}", code=3)
    assert "columns image and label are needed; found: picture, label" in line


def test_weights_that_do_not_fit(refuse, folder):
    path = model_folder(folder / "model")
    save_file({"head.weight": torch.zeros(3, 3)}, path / "model.safetensors")
    assert "do not fit" in refuse(f"model.name=local-dir:{path}", code=2)
