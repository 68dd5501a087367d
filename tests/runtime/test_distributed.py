"""Collective operations with one process, which need no launcher."""

import pytest

from vitdfq.common.errors import LaunchError
from vitdfq.runtime import distributed


def test_one_process_has_every_share_and_receives_its_own_results():
    assert (distributed.count(), distributed.index(), distributed.is_main()) == (1, 0, True)
    assert list(distributed.share([1, 2, 3])) == [1, 2, 3]
    assert distributed.gathered("a") == ["a"] and distributed.from_main(lambda: 7) == 7
    done = []
    assert distributed.shared_out([1, 2], lambda part: 10 * part, lambda *pair: done.append(pair)) == [10, 20]
    assert done == [(1, 10), (2, 20)]


def test_processes_that_do_not_see_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.Accelerator", lambda **_: type("Alone", (), {"num_processes": 1, "device": "cpu"})())
    with pytest.raises(LaunchError, match="started 2 processes, but each sees 1"):
        distributed.start()


def test_before_start_a_launched_process_works_alone(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(distributed, "_started", False)
    assert (distributed.count(), distributed.index(), distributed.is_main()) == (1, 0, True)
    assert list(distributed.share([1, 2])) == [1, 2]
    assert not distributed.is_reporting()  # the launcher's variables tell which process prints errors that all have


def test_the_first_failure_is_raised_when_its_round_is_over():
    done = []
    with pytest.raises(ZeroDivisionError):
        distributed.shared_out([1, 0, 2], lambda part: 1 / part, lambda *pair: done.append(pair))
    assert done == [(1, 1.0)]
