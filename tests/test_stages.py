import pytest
import torch

from vitdfq.errors import InputError
from vitdfq.stages import Stages, claimed, weights_fingerprint


def test_made_once_then_read_until_what_shaped_it_changes(tmp_path):
    made = []

    def make(shelf):
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
    make = lambda shelf: {"x": torch.ones(3)}  # noqa: E731
    stages.once("x.safetensors", "shape", make)
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    assert stages.seconds("x.safetensors", "shape") is None
    assert "changed since it was written" in capsys.readouterr().err
    stages.once("x.safetensors", "shape", make)
    (tmp_path / "x.safetensors").unlink()
    assert stages.seconds("x.safetensors", "shape") is None


def test_seconds_include_what_was_shelved_before_an_interruption(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vitdfq.shelf.time.monotonic", lambda: now[0])

    def make(shelf):
        for part in ("a", "b"):
            if shelf.get(part) is None:
                now[0] += 10
                shelf.part("inner").put(part, {"x": torch.ones(1)})
                shelf.put(part, {"x": torch.ones(1)})
                if part == killed_after:
                    now[0] += 3  # lost
                    raise KeyboardInterrupt
        return {"x": torch.ones(1)}

    killed_after = "a"
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).once("x.safetensors", "shape", make)
    killed_after = None
    _, seconds = Stages(tmp_path).once("x.safetensors", "shape", make)
    assert seconds == 20
    (tmp_path / "x.safetensors").unlink()
    _, again = Stages(tmp_path).once("x.safetensors", "shape", make)  # from the beginning
    assert again == 20


def test_what_an_interrupted_stage_shelved_serves_the_same_stage_and_no_other(tmp_path):
    stages, seen = Stages(tmp_path), []

    def killed(shelf):
        shelf.put("part", {"x": torch.ones(1)})
        raise KeyboardInterrupt

    def make(shelf):
        seen.append(shelf.get("part"))
        return {"x": torch.ones(2)}

    for name, shaped_by in (("x.safetensors", "shape"), ("y.safetensors", "another")):
        with pytest.raises(KeyboardInterrupt):
            stages.once(name, "shape", killed)
        stages.once(name, shaped_by, make)
    assert seen[0] is not None and seen[1:] == [None]
    assert not any((tmp_path / "stages/parts").rglob("*.safetensors"))


def test_claiming(tmp_path):
    folder = tmp_path / "run"
    with claimed(folder, "a", "name: a\n", fresh=False):
        (folder / "metrics.json").write_text("{}")
        (folder / "notes.txt").write_text("mine")
        with pytest.raises(InputError, match="another run is writing there"), claimed(folder, "a", "name: a\n", fresh=True):
            pass
    with claimed(folder, "a", "name: a\nseed: 1\n", fresh=False):
        pass
    with pytest.raises(InputError, match=r"holds another run \(a\)"), claimed(folder, "b", "name: b\n", fresh=False):
        pass
    assert (folder / "metrics.json").exists()
    with claimed(folder, "b", "name: b\n", fresh=True):
        assert not (folder / "metrics.json").exists() and (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="not a folder"), claimed(folder / "notes.txt", "a", "name: a\n", fresh=False):
        pass


def test_a_folder_whose_first_write_was_killed_is_free(tmp_path):
    (tmp_path / ".recipe.yaml.77.tmp").touch()
    with claimed(tmp_path, "a", "name: a\n", fresh=False):
        assert (tmp_path / "recipe.yaml").is_file() and not (tmp_path / ".recipe.yaml.77.tmp").exists()


def test_only_what_our_writers_left_behind_is_removed(tmp_path):
    """safetensors writes beside the file that it is given."""
    theirs = [".notes.tmp", ".tmpdWasO3", ".model.safetensors.77.tmp"]
    for name in theirs:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="not a vitdfq run"), claimed(tmp_path, "a", "name: a\n", fresh=False):
        pass
    assert all((tmp_path / name).exists() for name in theirs)
    (tmp_path / "recipe.yaml").write_text("name: a\n")  # now it is ours
    with claimed(tmp_path, "a", "name: a\n", fresh=False):
        assert [(tmp_path / name).exists() for name in theirs] == [True, False, False]


def test_fresh_that_is_killed_leaves_the_folder_ours(tmp_path, monkeypatch):
    with claimed(tmp_path, "a", "name: a\n", fresh=False):
        (tmp_path / "model.safetensors").touch()

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vitdfq.stages.write_text", killed)
        with claimed(tmp_path, "a", "name: a\n", fresh=True):
            pass
    (tmp_path / "model.safetensors").touch()
    with claimed(tmp_path, "a", "name: a\n", fresh=True):
        assert not (tmp_path / "model.safetensors").exists()


def test_weights_fingerprint_sees_one_changed_weight():
    model = torch.nn.Linear(3, 3)
    before = weights_fingerprint(model)
    assert before == weights_fingerprint(model)
    with torch.no_grad():
        model.weight[1, 1] += 1e-3
    assert weights_fingerprint(model) != before


@pytest.mark.parametrize("text", ["{", "[]", '{"images.safetensors": 3}', '{"images.safetensors": {}}', "\udcff"])
def test_a_damaged_record_makes_stages_again(tmp_path, text):
    stages = Stages(tmp_path)
    stages.once("images.safetensors", "print", lambda shelf: {"images": torch.zeros(1)})
    (tmp_path / "stages/finished.json").write_bytes(text.encode(errors="surrogateescape"))
    assert stages.seconds("images.safetensors", "print") is None
