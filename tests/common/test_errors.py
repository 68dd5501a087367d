import pytest

from vitdfq.common.errors import one_line


@pytest.mark.parametrize(
    ("message", "most", "line"),
    [
        (ValueError("two\n   lines "), 200, "two lines"),
        (ValueError(), 200, "ValueError"),
        ("x" * 9, 4, "xxxx ..."),
        ("x" * 4, 4, "xxxx"),
        ("x" * 900, None, "x" * 900),
    ],
)
def test_an_error_of_another_library_in_one_line(message, most, line):
    assert one_line(message, most) == line
