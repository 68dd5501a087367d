import pytest

from vitdfq.common.errors import one_line


@pytest.mark.parametrize(
    ("said", "most", "shown"),
    [
        (ValueError("two\n   lines "), 200, "two lines"),
        (ValueError(), 200, "ValueError"),
        ("x" * 9, 4, "xxxx ..."),
        ("x" * 4, 4, "xxxx"),
        ("x" * 900, None, "x" * 900),
    ],
)
def test_another_program_s_error_in_one_line(said, most, shown):
    assert one_line(said, most) == shown
