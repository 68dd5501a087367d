"""`vitdfq convert`: what people have on disk becomes a folder that loads, with the same logits."""

import json
import shlex

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import TINY

from vitdfq.common.errors import InputError
from vitdfq.models import load_teacher
from vitdfq.models.convert import convert, summary

ARCHITECTURE, ARGUMENTS = TINY["vit"]


@pytest.fixture
def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.create_model(ARCHITECTURE, num_classes=5, **ARGUMENTS).eval()


def logits(model, folder) -> tuple[torch.Tensor, torch.Tensor]:
    teacher = load_teacher(str(folder))
    images = torch.randn(2, 3, *teacher.pretrained_cfg["input_size"][1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(images), teacher(images)


def write(tensors: dict, path) -> None:
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "student.backbone."])
def test_prefixes_are_removed_and_other_tensors_left_out(prefix, model, tmp_path):
    tensors = {prefix + name: value for name, value in model.state_dict().items()}
    write(tensors | ({"criterion.weight": torch.ones(3)} if prefix else {}), tmp_path / "x.safetensors")
    result = convert(tmp_path / "x.safetensors", tmp_path / "my out", ARCHITECTURE, **ARGUMENTS)
    assert result["prefix"] == prefix and result["left_out"] == ["criterion.weight"] * bool(prefix) and result["classes"] == 5
    torch.testing.assert_close(*logits(model, tmp_path / "my out"))
    name = shlex.split(summary(result).splitlines()[-1])[-1]
    assert name == f"model.name=local-dir:{tmp_path / 'my out'}"
    assert ("criterion.weight" in summary(result)) == bool(prefix)


def test_license_and_origin_of_timms_weights_are_not_those_of_yours(model, tmp_path):
    write(model.state_dict(), tmp_path / "x.safetensors")
    assert model.pretrained_cfg.get("license") and model.pretrained_cfg.get("hf_hub_id")
    convert(tmp_path / "x.safetensors", tmp_path / "out", ARCHITECTURE, **ARGUMENTS)
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert not {"license", "hf_hub_id", "origin_url"} & {*written, *written["pretrained_cfg"]}
    assert not load_teacher(str(tmp_path / "out")).pretrained_cfg.get("license")


@pytest.mark.integration
@pytest.mark.parametrize("form", ["model_best.pth.tar", "misnamed.safetensors", "folder"])
def test_pickles_of_timm(form, model, tmp_path):
    if form == "folder":
        timm.models.save_for_hf(model, tmp_path / "saved", model_args=ARGUMENTS, safe_serialization=False)
        result = convert(tmp_path / "saved", tmp_path / "out")
    else:
        torch.save({"arch": ARCHITECTURE, "state_dict": model.state_dict(), "epoch": 1}, tmp_path / form)
        result = convert(tmp_path / form, tmp_path / "out", **ARGUMENTS)
        assert result["key"] == "state_dict" and "'state_dict'; --key names another" in summary(result)
    torch.testing.assert_close(*logits(model, tmp_path / "out"))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_classes"] == 5
    with pytest.raises(InputError, match="exists; choose another --out"):
        convert(tmp_path, tmp_path / "out")


@pytest.mark.integration
def test_a_damaged_pickle_is_one_line(tmp_path):
    (tmp_path / "x.pth").write_bytes(b"hello")
    with pytest.raises(InputError, match=r"x.pth: cannot be read \(") as caught:
        convert(tmp_path / "x.pth", tmp_path / "out", ARCHITECTURE)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_is_named_and_nothing_is_written(model, tmp_path):
    path, out = tmp_path / "x.safetensors", tmp_path / "out"
    tensors = model.state_dict()

    def refusal(change: dict, architecture: str | None = ARCHITECTURE, **arguments) -> str:
        write({name: value for name, value in (tensors | change).items() if value is not None}, path)
        with pytest.raises(InputError) as caught:
            convert(path, out, architecture, **ARGUMENTS | arguments)
        assert not out.exists() and "\n" not in str(caught.value)
        return str(caught.value)

    assert "lacks blocks.0.norm1.bias" in refusal({"blocks.0.norm1.bias": None})
    assert "has besides blocks.9.bias" in refusal({"blocks.9.bias": torch.ones(1)})
    assert "cls_token is not finite" in refusal({"cls_token": tensors["cls_token"] * float("nan")})
    assert "name it with --arch" in refusal({}, None)
    size = ARGUMENTS["img_size"]
    assert refusal({}, img_size=2 * size).endswith(f"in another shape pos_embed; try --set img_size={size}")
    with pytest.raises(InputError, match=r"absent.pth: no such file"):
        convert(tmp_path / "absent.pth", out, ARCHITECTURE)


@pytest.mark.parametrize(
    ("architecture", "arguments", "message"),
    [
        ("vit_tinny_patch16_224", {}, "unknown timm model 'vit_tinny_patch16_224', did you mean"),
        (ARCHITECTURE, {"nope": 1}, "timm cannot build"),
        (ARCHITECTURE, {"num_classes": 10}, "num_classes is 10, but its classifier has 5 classes"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line_with_the_file(architecture, arguments, message, model, tmp_path):
    write(model.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(InputError, match=rf"x.safetensors: {message}"):
        convert(tmp_path / "x.safetensors", tmp_path / "out", architecture, **ARGUMENTS, **arguments)
    assert not (tmp_path / "out").exists()
