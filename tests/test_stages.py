import pytest
import torch

from vitdfq.errors import InputError
from vitdfq.stages import Stages, claim_folder, weights_fingerprint


def test_made_once_then_read_until_what_shaped_it_changes(tmp_path):
    made = []

    def make():
        made.append(1)
        return {"x": torch.full((2,), float(len(made)))}

    stages = Stages(tmp_path)
    first, seconds = stages.once("x.safetensors", "shape", make)
    again, kept = stages.once("x.safetensors", "shape", make)
    assert torch.equal(first["x"], again["x"]) and seconds == kept and len(made) == 1
    other, _ = stages.once("x.safetensors", "another", make)
    assert other["x"][0] == 2


def test_a_damaged_or_missing_artefact_is_made_again(tmp_path, capsys):
    stages = Stages(tmp_path)
    make = lambda: {"x": torch.ones(3)}  # noqa: E731
    stages.once("x.safetensors", "shape", make)
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    assert stages.seconds("x.safetensors", "shape") is None
    assert "changed since it was written" in capsys.readouterr().err
    stages.once("x.safetensors", "shape", make)
    (tmp_path / "x.safetensors").unlink()
    assert stages.seconds("x.safetensors", "shape") is None


def test_claiming(tmp_path):
    folder = claim_folder(tmp_path / "run", "a", "name: a\n", fresh=False)
    (folder / "metrics.json").write_text("{}")
    (folder / "notes.txt").write_text("mine")
    claim_folder(folder, "a", "name: a\nseed: 1\n", fresh=False)
    with pytest.raises(InputError, match=r"holds another run \(a\)"):
        claim_folder(folder, "b", "name: b\n", fresh=False)
    assert (folder / "metrics.json").exists()
    claim_folder(folder, "b", "name: b\n", fresh=True)
    assert not (folder / "metrics.json").exists() and (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="not a folder"):
        claim_folder(folder / "notes.txt", "a", "name: a\n", fresh=False)


def test_weights_fingerprint_sees_one_changed_weight():
    model = torch.nn.Linear(3, 3)
    before = weights_fingerprint(model)
    assert before == weights_fingerprint(model)
    with torch.no_grad():
        model.weight[1, 1] += 1e-3
    assert weights_fingerprint(model) != before
