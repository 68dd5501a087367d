import pytest

from vitdfq.common.lookup import lookup


def test_a_name_is_looked_up():
    assert lookup("a", {"a": 1, "b": 2}, "letter") == 1


def test_unknown_name_is_answered_with_the_nearest_and_all_choices():
    with pytest.raises(ValueError, match=r"^unknown fruit 'aple', did you mean 'apple'\?; choices: apple, pear$"):
        lookup("aple", {"pear": 1, "apple": 2}, "fruit")
    with pytest.raises(ValueError, match=r"^unknown fruit 'xyz'; choices"):
        lookup("xyz", {"pear": 1}, "fruit")
