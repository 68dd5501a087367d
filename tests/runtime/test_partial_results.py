"""Finished parts in a folder: read again, damaged, missing, removed."""

import pytest
import torch

from vitdfq.runtime.partial_results import PartialResults


def part(value=1.0):
    return {"x": torch.full((2,), value), "half": torch.ones((), dtype=torch.bfloat16), "many": torch.arange(9)}


def test_without_a_folder_nothing_is_saved():
    parts = PartialResults()
    parts.put("a", part())
    assert parts.get("a") is None and parts.part("b").get("a") is None
    assert parts.missing(["a"]) == ["a"]


def test_parts_are_read_until_they_are_cleared(tmp_path):
    parts = PartialResults(tmp_path / "parts")
    parts.put("a", part())
    again = PartialResults(tmp_path / "parts").get("a")
    assert again is not None and all(torch.equal(again[name], value) for name, value in part().items())
    assert parts.part("b").get("a") is None
    parts.clear()
    assert parts.get("a") is None and not (tmp_path / "parts").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-8] + b"damaged?", lambda data: b""], ids=range(3))
def test_a_damaged_part_is_named_and_computed_again(tmp_path, caplog, damage):
    parts = PartialResults(tmp_path)
    parts.put("a", part())
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert parts.get("a") is None
    assert f"{path}: changed since it was written; computed again" in caplog.text


def test_missing_parts_alone_are_computed_and_the_order_stays(tmp_path):
    parts, computed = PartialResults(tmp_path), []

    def compute(name):
        computed.append(name)
        return part(float(name))

    parts.put("1", part(1.0))
    results = parts.compute_missing(["2", "1", "0"], compute)
    assert [result["x"][0].item() for result in results] == [2, 1, 0] and computed == ["2", "0"]
    assert parts.missing(["0", "1", "2", "3"]) == ["3"]
