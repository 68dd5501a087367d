"""A group of sites names all of them, once."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.cost.site_groups import grouped, ranges

PARTS = st.tuples(
    st.sampled_from(["blocks.{}.fc1", "blocks.{}.fc2", "layers.{}.blocks.{}.qkv", "head"]), st.integers(0, 3), st.integers(0, 3)
)


def site(name: str, bits: int | None = 4) -> dict:
    return {"name": name, "shape": None, "weight_bits": bits, "input_bits": [bits]}


def names(group: str) -> list[str]:
    """The names that a group's name stands for."""
    parts = []
    for part in group.split("."):
        ends = [run.split("-") for run in part.split(",")]
        parts.append([str(n) for run in ends for n in range(int(run[0]), int(run[-1]) + 1)] if part[0].isdecimal() else [part])
    return [".".join(choice) for choice in itertools.product(*parts)]


def test_sites_of_equal_settings_are_one_row():
    sites = [site(f"blocks.{block}.{kind}") for block in range(12) for kind in ("qkv", "fc1")]
    rows = grouped([site("patch_embed.proj", 8), *sites, site("head", 8)])
    assert [(number, row["name"]) for number, row in rows] == [
        (1, "patch_embed.proj"),
        (12, "blocks.0-11.qkv"),
        (12, "blocks.0-11.fc1"),
        (1, "head"),
    ]
    assert [row["weight_bits"] for _, row in rows] == [8, 4, 4, 8]


def test_a_site_of_other_bits_or_another_shape_is_a_row_of_its_own():
    sites = [site(f"blocks.{block}.fc2", 6 if block == 3 else 4) for block in range(6)]
    assert [(number, row["name"]) for number, row in grouped(sites)] == [(5, "blocks.0-2,4-5.fc2"), (1, "blocks.3.fc2")]
    assert len(grouped([site("blocks.0.fc2"), site("blocks.1.fc2") | {"shape": [2, 2]}])) == 2
    assert len(grouped([site("blocks.0.fc2", None), site("blocks.1.fc2", 8)])) == 2


def test_stages_of_other_depths_are_rows_of_their_own():
    sites = [site(f"layers.{stage}.blocks.{block}.qk") for stage, depth in enumerate((2, 2, 6, 2)) for block in range(depth)]
    expected = [(6, "layers.0-1,3.blocks.0-1.qk"), (6, "layers.2.blocks.0-5.qk")]
    assert [(number, row["name"]) for number, row in grouped(sites)] == expected


@settings(deadline=None)
@given(st.dictionaries(PARTS.map(lambda parts: parts[0].format(*parts[1:])), st.sampled_from([4, 8])))
def test_every_site_is_in_one_row_with_its_settings(bits):
    rows = grouped([site(name, number) for name, number in bits.items()])
    assert sorted(name for _, row in rows for name in names(row["name"])) == sorted(bits)
    for number, row in rows:
        assert number == len(names(row["name"])) and {bits[name] for name in names(row["name"])} == {row["weight_bits"]}


def test_ranges():
    assert ranges([5, 1, 0, 2]) == "0-2,5" and ranges([7]) == "7" and ranges([3, 4]) == "3-4"
