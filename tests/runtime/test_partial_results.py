import pytest
import torch

from vitdfq.runtime.partial_results import PartialResults


def part(value=1.0):
    return {"x": torch.full((2,), value), "half": torch.ones((), dtype=torch.bfloat16), "many": torch.arange(9)}


def test_without_a_folder_nothing_is_kept():
    shelf = PartialResults()
    shelf.put("a", part())
    assert shelf.get("a") is None and shelf.part("b").get("a") is None
    assert shelf.missing(["a"]) == ["a"]


def test_parts_come_back_until_cleared(tmp_path):
    shelf = PartialResults(tmp_path / "shelf")
    shelf.put("a", part())
    again = PartialResults(tmp_path / "shelf").get("a")
    assert again is not None and all(torch.equal(again[name], value) for name, value in part().items())
    assert shelf.part("b").get("a") is None
    shelf.clear()
    assert shelf.get("a") is None and not (tmp_path / "shelf").exists()


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-8] + b"damaged?", lambda data: b""], ids=range(3))
def test_a_damaged_part_is_named_and_made_again(tmp_path, capsys, damage):
    shelf = PartialResults(tmp_path)
    shelf.put("a", part())
    path = tmp_path / "a.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    assert shelf.get("a") is None
    assert f"{path}: changed since it was written; made again" in capsys.readouterr().err.replace("\n", "")


def test_all_makes_what_is_missing_and_keeps_the_order(tmp_path):
    shelf, made = PartialResults(tmp_path), []

    def make(name):
        made.append(name)
        return part(float(name))

    shelf.put("1", part(1.0))
    found = shelf.all(["2", "1", "0"], make)
    assert [own["x"][0].item() for own in found] == [2, 1, 0] and made == ["2", "0"]
    assert shelf.missing(["0", "1", "2", "3"]) == ["3"]
