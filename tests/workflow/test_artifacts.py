"""Artifacts of a run folder: used again, made again, and whose folder it is."""

import json

import pytest
import torch

from vitdfq.common.errors import InputError
from vitdfq.workflow.artifacts import ArtifactStore, lock_run_folder

INPUTS, OTHER = {"synthesize": {"steps": 100}}, {"synthesize": {"steps": 200}}


def test_made_once_then_read_until_its_inputs_change(tmp_path):
    calls = []

    def make(run):
        calls.append(1)
        return {"x": torch.full((2,), float(len(calls)))}

    store = ArtifactStore(tmp_path)
    first, seconds = store.get_or_make("x.safetensors", INPUTS, make)
    again, recorded = store.get_or_make("x.safetensors", INPUTS, make)
    assert torch.equal(first["x"], again["x"]) and seconds == recorded and len(calls) == 1
    other, _ = store.get_or_make("x.safetensors", OTHER, make)
    assert other["x"][0] == 2


def test_a_damaged_or_missing_artifact_is_made_again(tmp_path, caplog):
    store = ArtifactStore(tmp_path)
    make = lambda run: {"x": torch.ones(3)}  # noqa: E731
    store.get_or_make("x.safetensors", INPUTS, make)
    (tmp_path / "x.safetensors").write_bytes(b"damaged")
    assert store.finished_seconds("x.safetensors", INPUTS) is None
    assert "changed since it was written" in caplog.text
    store.get_or_make("x.safetensors", INPUTS, make)
    (tmp_path / "x.safetensors").unlink()
    assert store.finished_seconds("x.safetensors", INPUTS) is None


def test_a_message_names_the_input_that_changed(tmp_path, caplog):
    store = ArtifactStore(tmp_path)
    make = lambda run: {"x": torch.ones(3)}  # noqa: E731
    store.get_or_make("x.safetensors", INPUTS, make)
    assert not caplog.messages  # there was no artifact before
    store.get_or_make("x.safetensors", OTHER, make)
    assert caplog.messages == ["x.safetensors: made again, synthesize.steps was 100, is 200"]


def test_a_record_without_inputs_is_still_valid(tmp_path, caplog):
    store, path = ArtifactStore(tmp_path), tmp_path / "stages/finished.json"
    store.get_or_make("x.safetensors", INPUTS, lambda run: {"x": torch.ones(3)})
    record = json.loads(path.read_text())
    del record["x.safetensors"]["inputs"]
    path.write_text(json.dumps(record))
    assert store.finished_seconds("x.safetensors", INPUTS) is not None
    assert store.finished_seconds("x.safetensors", OTHER) is None
    assert "x.safetensors: made again, its inputs have changed" in caplog.text


def test_a_changed_file_beside_it_makes_an_artifact_again(tmp_path, caplog):
    store = ArtifactStore(tmp_path)
    for name in ("x.safetensors", "config.json"):
        (tmp_path / name).write_text("complete")
    store.finish("x.safetensors", INPUTS, 1.0, beside=("config.json",))
    assert store.finished_seconds("x.safetensors", INPUTS) == 1.0
    for damage in (lambda path: path.write_text("comp"), lambda path: path.unlink()):
        damage(tmp_path / "config.json")
        assert store.finished_seconds("x.safetensors", INPUTS) is None
        assert caplog.messages[-1] == f"{tmp_path / 'config.json'}: changed since it was written; made again"


def test_seconds_include_parts_finished_before_an_interruption(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vitdfq.runtime.partial_results.time.monotonic", lambda: now[0])

    def make(run):
        for part in ("a", "b"):
            if run.resume(part) is None:
                now[0] += 10
                run.part("inner").checkpoint(part, {"x": torch.ones(1)})
                run.checkpoint(part, {"x": torch.ones(1)})
                if part == killed_after:
                    now[0] += 3  # not counted: no part was finished in these seconds
                    raise KeyboardInterrupt
        return {"x": torch.ones(1)}

    killed_after = "a"
    with pytest.raises(KeyboardInterrupt):
        ArtifactStore(tmp_path).get_or_make("x.safetensors", INPUTS, make)
    killed_after = None
    _, seconds = ArtifactStore(tmp_path).get_or_make("x.safetensors", INPUTS, make)
    assert seconds == 20
    (tmp_path / "x.safetensors").unlink()
    _, again = ArtifactStore(tmp_path).get_or_make("x.safetensors", INPUTS, make)  # from the beginning
    assert again == 20


def test_parts_of_an_interrupted_stage_are_used_by_the_same_stage_only(tmp_path):
    store, resumed = ArtifactStore(tmp_path), []

    def killed(run):
        run.checkpoint("part", {"x": torch.ones(1)})
        raise KeyboardInterrupt

    def make(run):
        resumed.append(run.resume("part"))
        return {"x": torch.ones(2)}

    for name, inputs in (("x.safetensors", INPUTS), ("y.safetensors", OTHER)):
        with pytest.raises(KeyboardInterrupt):
            store.get_or_make(name, INPUTS, killed)
        store.get_or_make(name, inputs, make)
    assert resumed[0] is not None and resumed[1:] == [None]
    assert not any((tmp_path / "stages/parts").rglob("*.safetensors"))


def test_a_folder_is_reserved_for_one_run(tmp_path):
    folder = tmp_path / "run"
    with lock_run_folder(folder, "a", "name: a\n", fresh=False):
        (folder / "metrics.json").write_text("{}")
        (folder / "notes.txt").write_text("mine")
        with (
            pytest.raises(InputError, match="another run is writing there"),
            lock_run_folder(folder, "a", "name: a\n", fresh=True),
        ):
            pass
    with lock_run_folder(folder, "a", "name: a\nseed: 1\n", fresh=False):
        pass
    with pytest.raises(InputError, match=r"holds another run \(a\)"), lock_run_folder(folder, "b", "name: b\n", fresh=False):
        pass
    assert (folder / "metrics.json").exists()
    with lock_run_folder(folder, "b", "name: b\n", fresh=True):
        assert not (folder / "metrics.json").exists() and (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(InputError, match="not a folder"), lock_run_folder(folder / "notes.txt", "a", "name: a\n", fresh=False):
        pass


def test_a_folder_whose_first_write_was_killed_can_be_used(tmp_path):
    (tmp_path / ".recipe.yaml.77.tmp").touch()
    with lock_run_folder(tmp_path, "a", "name: a\n", fresh=False):
        assert (tmp_path / "recipe.yaml").is_file() and not (tmp_path / ".recipe.yaml.77.tmp").exists()


def test_only_temporary_files_of_this_library_are_removed(tmp_path):
    """The second is of safetensors, which writes a temporary file beside its target."""
    names = [".notes.tmp", ".tmpdWasO3", ".model.safetensors.77.tmp"]
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="not a vitdfq run"), lock_run_folder(tmp_path, "a", "name: a\n", fresh=False):
        pass
    assert all((tmp_path / name).exists() for name in names)
    (tmp_path / "recipe.yaml").write_text("name: a\n")  # makes it the folder of a run
    with lock_run_folder(tmp_path, "a", "name: a\n", fresh=False):
        assert [(tmp_path / name).exists() for name in names] == [True, False, False]


def test_a_killed_fresh_run_leaves_the_folder_a_run_folder(tmp_path, monkeypatch):
    with lock_run_folder(tmp_path, "a", "name: a\n", fresh=False):
        (tmp_path / "model.safetensors").touch()

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("vitdfq.workflow.artifacts.write_text", killed)
        with lock_run_folder(tmp_path, "a", "name: a\n", fresh=True):
            pass
    (tmp_path / "model.safetensors").touch()
    with lock_run_folder(tmp_path, "a", "name: a\n", fresh=True):
        assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"images.safetensors": 3}', '{"images.safetensors": {}}', "\udcff"])
def test_a_damaged_record_makes_stages_again(tmp_path, text):
    store = ArtifactStore(tmp_path)
    store.get_or_make("images.safetensors", INPUTS, lambda run: {"images": torch.zeros(1)})
    (tmp_path / "stages/finished.json").write_bytes(text.encode(errors="surrogateescape"))
    assert store.finished_seconds("images.safetensors", INPUTS) is None
