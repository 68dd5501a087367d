"""Progress and messages of the command line; the library itself prints nothing."""

import io
import logging
import re

import pytest

from vitdfq.runtime import distributed, progress
from vitdfq.runtime.progress import ProgressBar, logger, quiet, show_messages


@pytest.fixture(autouse=True)
def reporting():
    """The command line's set-up of the logger, for one test."""
    before = list(logger.handlers), logger.level, logger.propagate
    show_messages()
    yield
    logger.handlers[:], logger.level, logger.propagate = before
    logger.setLevel(before[1])


def test_plain_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with ProgressBar("work", total=2) as bar:
        bar.advance(loss=0.5)
        bar.advance(loss=0.25)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("work: 1/2") and "s left" in first and "loss 0.5" in first
    assert last.startswith("work: 2/2") and "/s" in last


def test_skipped_steps_do_not_count_for_the_rate(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with ProgressBar("work", total=100) as bar:
        bar.skip(90)
        bar.advance(4)
    assert capsys.readouterr().err.startswith("work: 94/100  2.0/s  3 s left")


def test_messages_of_every_process_have_a_prefix(capsys, monkeypatch):
    monkeypatch.setattr(distributed, "is_reporting", lambda: False)
    monkeypatch.setattr(distributed, "index", lambda: 1)
    every_process = {"every_process": True}
    logger.info("one", extra=every_process)
    monkeypatch.setattr(distributed, "count", lambda: 2)
    logger.info("two", extra=every_process)
    logger.info("three")
    assert capsys.readouterr().err.splitlines() == ["one", "process 1: two"]


def test_quiet_still_prints_warnings(capsys):
    with quiet():
        with ProgressBar("work", total=1) as bar:
            bar.advance()
        logger.info("hello")
        logger.warning("beware")
    logger.info("hello again")
    assert capsys.readouterr().err == "beware\nhello again\n"


def test_the_final_line_is_printed_once(capsys):
    with ProgressBar("work", total=2) as bar:
        for _ in range(5):
            bar.advance()
    assert capsys.readouterr().err.count("work:") == 1


def test_without_the_command_line_nothing_is_printed(capsys):
    logger.handlers[:] = [logging.NullHandler()]
    logger.setLevel(logging.NOTSET)
    with ProgressBar("work", total=1) as bar:
        bar.advance()
    logger.info("hello")
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("width", [60, 70, 80, 120])
def test_bar_count_and_time_left_fit_into_a_narrow_terminal(width, monkeypatch):
    from rich.console import Console

    screen = Console(width=width, force_terminal=True, file=io.StringIO(), highlight=False, legacy_windows=False)
    monkeypatch.setattr(progress, "console", screen)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with ProgressBar("synthesize", total=16000) as bar:
        bar.advance(8000, loss=1.234, attention_prior=0.123456, class_confidence=12.34)
        assert bar.live is not None
    paper = Console(width=width)
    with paper.capture() as captured:
        paper.print(bar.live.get_renderable())
    line = captured.get().rstrip("\n")
    assert "\n" not in line and len(line.rstrip()) <= width and "…" not in line
    assert "━━━" in line and "8000/16000" in line and re.search(r"\d:\d\d:\d\d|-:--:--", line)
    assert ("class_confidence" in line) == (width == 120)


def test_numbers_are_left_out_whole():
    assert progress.fitting(["12.0/s", "loss 1.5", "a 2"], 16) == "12.0/s  loss 1.5"
    assert progress.fitting(["12.0/s", "loss 1.5", "a 2"], 15) == "12.0/s"
    assert progress.fitting(["12.0/s"], 0) == ""
