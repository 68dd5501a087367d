import pytest

from vitdfq import processes
from vitdfq.errors import LaunchError


def test_one_process_has_every_share_and_hears_itself():
    assert (processes.count(), processes.index(), processes.is_main()) == (1, 0, True)
    assert list(processes.share([1, 2, 3])) == [1, 2, 3]
    assert processes.gathered("a") == ["a"] and processes.from_main(lambda: 7) == 7
    done = []
    assert processes.shared_out([1, 2], lambda part: 10 * part, lambda *pair: done.append(pair)) == [10, 20]
    assert done == [(1, 10), (2, 20)]


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.Accelerator", lambda: type("Alone", (), {"num_processes": 1, "device": "cpu"})())
    with pytest.raises(LaunchError, match="started 2 processes, but each sees 1"):
        processes.start()
