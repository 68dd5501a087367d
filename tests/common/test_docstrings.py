"""Descriptions come from docstrings, so these are read as they are written in this package."""

from functools import partial

from vitdfq.common.docstrings import arguments_of, first_sentence
from vitdfq.synthesis import synthesize


def example(number: int, *, left: int = 0, right: int = 0) -> None:
    """Return the sum of both sides, which may be
    written in two lines. (B,)

    A second paragraph. It counts nowhere.

    Args:
        number: a first line
            and a second, with a colon: here.
        left, right: the sides.
        **rest: others.

    Returns:
        nothing: that is no argument.
    """


def formula() -> None:
    """Return relu(x): a formula keeps its letters. More."""


def test_the_first_sentence_is_one_line_without_its_shape():
    assert first_sentence(example) == "The sum of both sides, which may be written in two lines"
    assert first_sentence(formula) == "relu(x): a formula keeps its letters"
    assert first_sentence(partial(formula, base=2)) == "relu(x): a formula keeps its letters (base=2)"
    assert first_sentence(lambda: None) == ""


def test_arguments_are_described_in_one_line_each():
    assert arguments_of(example) == {
        "number": "a first line and a second, with a colon: here.",
        "left": "the sides.",
        "right": "the sides.",
        "rest": "others.",
    }


def test_keywords_out_of_a_dataclass_are_described_there():
    assert arguments_of(synthesize)["num_images"] == "how many images to make."
