from vitdfq import progress


def test_plain_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with progress.bar("work", total=2) as bar:
        bar.advance(loss=0.5)
        bar.advance(loss=0.25)
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("work: 1/2") and "s left" in first and "loss 0.5" in first
    assert last.startswith("work: 2/2") and "/s" in last


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
