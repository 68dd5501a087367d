"""Labels of a set without a model that knows its classes."""

import pytest
from datasets import ClassLabel, Value

from vitdfq.common.errors import RecipeError
from vitdfq.data.own_labels import own_numbers


def test_equal_classes_have_equal_numbers_in_splits_that_lack_some():
    train = own_numbers("x", ClassLabel(names=["ant", "bee", "12"]))
    test = own_numbers("x", ClassLabel(names=["Bee", "12"]))
    text = own_numbers("x", Value("string"))
    assert train(1) == test(0) == text("bee") and train(2) == test(1) == text("12") == 12
    assert len({train(0), train(1), train(2)}) == 3 and all(0 <= train(index) < 2**56 for index in range(3))
    assert own_numbers("x", Value("int64"))(7) == 7


@pytest.mark.parametrize("feature", [ClassLabel(names=["a", "b"]), Value("int64"), Value("string")])
def test_what_is_no_label_is_refused(feature):
    with pytest.raises(ValueError, match="no class"):
        own_numbers("x", feature)(-1 if feature.dtype == "int64" else "")
    with pytest.raises(RecipeError, match="must hold whole numbers or names"):
        own_numbers("x", Value("float32"))
