"""Files appear whole or not at all, with the permissions of any new file."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vitdfq.common.files import fingerprint, write_text, written_together, written_whole
from vitdfq.common.safetensors_io import write_tensors


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("has_links", [True, False])
@pytest.mark.parametrize("refused", ["a", "b", "c"])
def test_when_one_of_several_files_cannot_be_replaced_all_stay(tmp_path, monkeypatch, refused, has_links):
    names, replace = ["a", "b", "c"], Path.replace
    write_text(tmp_path / "b", "old")
    write_text(tmp_path / "c", "old")

    def refuse(path, target):
        if path.name.endswith(".tmp") and target.name == refused:
            raise PermissionError
        return replace(path, target)

    def no_links(*given, **options):
        raise OSError

    monkeypatch.setattr(Path, "replace", refuse)
    if not has_links:
        monkeypatch.setattr(os, "link", no_links)
    with pytest.raises(PermissionError), written_together(*(tmp_path / name for name in names)) as temporaries:
        for temporary in temporaries:
            temporary.write_text("new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "old", "c": "old"}


@pytest.mark.integration
def test_a_killed_process_leaves_the_old_content(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")
    code = (
        "import os, sys, pathlib; from vitdfq.common.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as t:\n    t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_files_have_the_permissions_of_any_new_file(tmp_path, monkeypatch):
    (tmp_path / "usual").touch()
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask of the process was changed"))
    write_text(tmp_path / "text", "x")
    write_tensors(tmp_path / "tensors", {"x": torch.ones(2)})
    write_tensors(tmp_path / "tensors", {"x": torch.ones(3)})  # over the first
    assert {path.name: oct(path.stat().st_mode) for path in tmp_path.iterdir()} == dict.fromkeys(
        ("usual", "text", "tensors"), oct((tmp_path / "usual").stat().st_mode)
    )


@pytest.mark.integration
@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077])
def test_permissions_follow_the_umask(tmp_path, umask):
    code = "import sys, pathlib; from vitdfq.common.files import write_text; write_text(pathlib.Path(sys.argv[1]), 'x')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "file"], umask=umask, check=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_fingerprint_depends_on_every_part_and_not_on_key_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("b", 1), fingerprint("a")}) == 4
