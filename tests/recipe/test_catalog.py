"""The names of `vitdfq list`, each with one line."""

import pytest

from vitdfq.common.errors import InputError
from vitdfq.quantization import QUANTIZERS
from vitdfq.recipe.catalog import KINDS, entries
from vitdfq.synthesis import METHODS


@pytest.mark.integration  # the zoo's descriptions are read from its files
def test_every_entry_of_every_kind_has_one_line():
    for kind, described in entries().items():
        assert described, kind
        for name, line in described.items():
            assert len(line) > 10 and "\n" not in line, f"{kind}: {name}: {line!r}"


def test_lines_are_those_of_the_entries():
    assert entries("methods") == {"methods": {name: METHODS[name].summary for name in sorted(METHODS)}}
    lines = entries("quantizers")["quantizers"]
    assert list(lines) == sorted(QUANTIZERS) and lines["log2"] != lines["log_sqrt2"]
    assert entries("recipes")["recipes"]["quickstart"].startswith("A small distilled DeiT to W4A4")


def test_one_kind_is_read_alone(monkeypatch):
    monkeypatch.setitem(KINDS, "zoo", lambda: pytest.fail("the zoo was read"))
    assert list(entries("steps")) == ["steps"]


def test_an_unknown_kind_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'losses'"):
        entries("loss")
