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
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: type("Alone", (), {"num_processes": 1, "device": "cpu"})())
    with pytest.raises(LaunchError, match="started 2 processes, but each sees 1"):
        processes.start()


def test_what_does_not_fit_is_tried_with_half_as_many():
    tried = []

    def do(size):
        tried.append(size)
        if size > 5:
            raise RuntimeError("CUDA out of memory.")
        return 10 * size

    assert processes.fitting(20, do) == 50 and tried == [20, 10, 5]
    with pytest.raises(MemoryError, match="one image at a time"):
        processes.fitting(3, lambda size: do(6))
    with pytest.raises(ValueError, match="another"):
        processes.fitting(3, lambda size: (_ for _ in ()).throw(ValueError("another")))


def test_a_launcher_means_nothing_before_start(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes, "_started", False)
    assert (processes.count(), processes.index(), processes.is_main()) == (1, 0, True)
    assert list(processes.share([1, 2])) == [1, 2]
    assert not processes.speaks()  # but for errors that all of them meet


def test_the_first_failure_is_raised_when_its_round_is_over():
    done = []
    with pytest.raises(ZeroDivisionError):
        processes.shared_out([1, 0, 2], lambda part: 1 / part, lambda *pair: done.append(pair))
    assert done == [(1, 1.0)]
