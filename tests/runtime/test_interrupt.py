"""The last line of an interrupted command: what is kept, and a command that can be copied. Real signals: tests/test_cli.py."""

import shlex
import sys
from pathlib import Path

import pytest

from vitdfq.runtime import interrupt
from vitdfq.runtime.interrupt import Kept
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.progress import ProgressBar


@pytest.fixture
def kept(monkeypatch) -> Kept:
    monkeypatch.setattr(interrupt, "kept", Kept())
    return interrupt.kept


@pytest.fixture
def typed(monkeypatch):
    def type_in(*words: str, program: tuple[str, ...] = ("/usr/bin/python3", "-m", "vitdfq")) -> None:
        monkeypatch.setattr(sys, "orig_argv", [*program, *words])
        monkeypatch.setattr(sys, "argv", [program[-1], *words])

    monkeypatch.delenv("RANK", raising=False)
    return type_in


def test_only_steps_in_saved_parts_count(kept, tmp_path):
    assert kept.describe() == "nothing new was written here"
    kept.folder = Path("my runs/x")
    kept.begin_stage(4, 6)
    assert kept.describe() == "3 of 6 stages are kept in 'my runs/x'"
    parts = PartialResults(tmp_path)
    with ProgressBar("synthesize", total=1000) as bar:
        bar.advance(120)
        parts.put("images_0_16", {})
        bar.advance(100)
        assert kept.describe() == "3 of 6 stages and 120 of 1,000 steps of synthesize are kept in 'my runs/x'"
    kept.begin_stage(5, 6)
    assert kept.describe() == "4 of 6 stages are kept in 'my runs/x'"


def test_steps_of_an_earlier_start_are_kept(kept):
    kept.folder = Path("x")
    kept.begin_stage(1, 1)
    with ProgressBar("synthesize", total=1000) as bar:
        bar.skip(300)
        bar.advance(1)
    assert "300 of 1,000 steps" in kept.describe()


def test_the_command_can_be_copied_and_removes_nothing(typed, kept):
    words = ["run", "my recipe.yaml", "--set", "calibrate.steps=[observe, 'gptq']", "--out", "$x"]
    typed(*words, "--fresh")
    assert shlex.split(interrupt.command()) == ["/usr/bin/python3", "-m", "vitdfq", *words]
    typed(*words, program=("/venv/bin/python", "/venv/bin/vitdfq"))
    assert shlex.split(interrupt.command()) == ["vitdfq", *words]
    assert interrupt.last_line().startswith("interrupted: nothing new was written here; to go on: vitdfq run 'my recipe.yaml'")


@pytest.mark.parametrize(
    ("launcher", "command"),
    [
        (["python3.11", "/bin/torchrun", "-m", "vitdfq", "run", "a b"], "torchrun -m vitdfq run 'a b'"),
        (["python", "-m", "torch.distributed.run", "-m", "vitdfq", "run"], "python -m torch.distributed.run -m vitdfq run"),
        (["accelerate", "launch", "-m", "vitdfq", "run"], "accelerate launch -m vitdfq run"),
        (["bash", "job.sh"], "vitdfq run"),
    ],
)
def test_a_launched_process_names_its_launcher(launcher, command, typed, monkeypatch):
    typed("run", program=("python", "/bin/vitdfq"))
    monkeypatch.setenv("RANK", "0")
    cmdline = "".join(f"{word}\0" for word in launcher).encode()
    monkeypatch.setattr(interrupt.Path, "read_bytes", lambda path: cmdline)
    assert interrupt.command() == command
