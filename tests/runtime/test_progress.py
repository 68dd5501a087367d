from vitdfq.runtime import distributed, progress


def test_plain_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.bar("work", total=2) as bar:
        bar.advance(loss=0.5)
        bar.advance(loss=0.25)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("work: 1/2") and "s left" in first and "loss 0.5" in first
    assert last.startswith("work: 2/2") and "/s" in last


def test_what_an_earlier_start_did_does_not_count_as_fast(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with progress.bar("work", total=100) as bar:
        bar.skip(90)
        bar.advance(4)
    assert capsys.readouterr().err.startswith("work: 94/100  2.0/s  3 s left")


def test_each_process_speaks_of_its_own_share(capsys, monkeypatch):
    monkeypatch.setattr(distributed, "speaks", lambda: False)
    monkeypatch.setattr(distributed, "index", lambda: 1)
    progress.say("one", own=True)
    monkeypatch.setattr(distributed, "count", lambda: 2)
    progress.say("two", own=True)
    progress.say("three")
    assert capsys.readouterr().err.splitlines() == ["one", "process 1: two"]


def test_quiet(capsys, monkeypatch):
    monkeypatch.setattr(progress, "quiet", True)
    with progress.bar("work", total=1) as bar:
        bar.advance()
    progress.say("hello")
    assert capsys.readouterr().err == ""


def test_what_is_done_again_is_said_with_care(capsys):
    with progress.bar("work", total=2) as bar:
        for _ in range(5):
            bar.advance()
    assert capsys.readouterr().err.count("work:") == 1  # the last line, once
