import pytest

from vitdfq.common.files import fingerprint, write_text, written_whole


def test_a_failed_write_leaves_the_old_content_and_nothing_else(tmp_path):
    path = tmp_path / "a" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_process_leaves_the_old_content(tmp_path):
    import subprocess
    import sys

    path = tmp_path / "file.txt"
    write_text(path, "old")
    code = (
        "import os, sys, pathlib; from vitdfq.common.files import written_whole\n"
        "with written_whole(pathlib.Path(sys.argv[1])) as t:\n    t.write_text('half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, path]).returncode == -9
    assert path.read_text() == "old"


def test_fingerprint_depends_on_every_part_and_not_on_key_order():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert len({fingerprint("a", 1), fingerprint("a", 2), fingerprint("b", 1), fingerprint("a")}) == 4
