"""Old names in recipes are read as today's, with one line in the log."""

import pytest
from recipe_text import refusal

from vitdfq.common.errors import RecipeError
from vitdfq.recipe import load_recipe

OLD = """\
model: {name: zoo:vit}
synthesize:
  method: psaq
  among: {dead_leaves: 0.5}
  canvas: decoder
  drop_at: [0.1, 0.2]
  losses:
    attention_centre: {weight: 2.0}
quantize:
  weight: {observer: hessian}
  overrides:
    "head*": {weight: {observer: hessian}}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(OLD)
    return path


def lines(caplog) -> list[str]:
    records = [record for record in caplog.records if record.name == "vitdfq"]
    assert all(record.levelname == "WARNING" for record in records)
    return [record.getMessage() for record in records]


def test_old_names_are_read_with_one_line_for_each(file, caplog):
    recipe = load_recipe(file)
    assert recipe.synthesize == {
        "method": "psaq",
        "mix": {"dead_leaves": 0.5},
        "parametrization": "decoder",
        "prune_at": [0.1, 0.2],
        "losses": {"attention_center": {"weight": 2.0}},
        "seed": 0,
    }
    assert recipe.quantize["weight"] == recipe.quantize["overrides"]["head*"]["weight"] == {"observer": "output_error"}
    assert lines(caplog) == [
        f"{file}:4: synthesize.among is an old name; write mix",
        f"{file}:5: synthesize.canvas is an old name; write parametrization",
        f"{file}:6: synthesize.drop_at is an old name; write prune_at",
        f"{file}:8: synthesize.losses.attention_centre is an old name; write attention_center",
        f"{file}:10: quantize.weight.observer 'hessian' is an old name; write output_error",
    ]


def test_a_base_with_old_names_is_changed_by_new_ones(file, caplog):
    (file.parent / "new.yaml").write_text("extends: old.yaml\nsynthesize: {mix: {dead_leaves: 0.25}, prune_at: null}\n")
    recipe = load_recipe(file.parent / "new.yaml")
    assert recipe.synthesize["mix"] == {"dead_leaves": 0.25} and recipe.synthesize["prune_at"] is None
    assert "among" not in recipe.synthesize and len(lines(caplog)) == 5


@pytest.mark.parametrize(
    ("override", "key", "value", "line"),
    [
        ("synthesize.among.dead_leaves=0.25", "mix", {"dead_leaves": 0.25}, "synthesize.among is an old name; write mix"),
        ("synthesize.drop_at=[0.3]", "prune_at", [0.3], "synthesize.drop_at is an old name; write prune_at"),
        ("synthesize={drop_at: [0.3]}", "prune_at", [0.3], "synthesize.drop_at is an old name; write prune_at"),
        (
            "synthesize.losses.attention_centre.weight=3.0",
            "losses",
            {"attention_center": {"weight": 3.0}},
            "synthesize.losses.attention_centre is an old name; write attention_center",
        ),
    ],
)
def test_old_names_in_overrides(override, key, value, line, caplog):
    new = {"mix": {"dead_leaves": 0.5}, "prune_at": [0.1], "losses": {"attention_center": {"weight": 2.0}}}
    recipe = load_recipe({"model": {"name": "zoo:vit"}, "synthesize": new}, [override])
    assert recipe.synthesize[key] == value
    assert lines(caplog) == [f"--set {override}: {line}"]


def test_an_old_observer_in_an_override(caplog):
    recipe = load_recipe({"model": {"name": "zoo:vit"}}, ["quantize.weight.observer=hessian"])
    assert recipe.quantize["weight"] == {"observer": "output_error"} and len(lines(caplog)) == 1


def test_an_error_is_reported_under_the_new_name_at_the_old_line(file):
    file.write_text(OLD.replace("[0.1, 0.2]", "[2.0]"))
    assert refusal(RecipeError, file).startswith(f"{file}:6: synthesize.prune_at: prune_at takes shares")


def test_both_names_at_once_are_refused(file):
    file.write_text(OLD.replace("  method: psaq", "  mix: {noise: 0.5}"))
    message = refusal(RecipeError, file)
    assert message == f"{file}:4: synthesize.among: is the old name of mix, which is given too; remove one of them"
    file.write_text(OLD)
    both = ("synthesize.mix={noise: 0.5}", "synthesize.among={noise: 0.25}")
    for overrides in (both, both[::-1]):
        message = refusal(RecipeError, file, *overrides)
        assert message == f"--set {overrides[1]}: sets the same key as --set {overrides[0]}, under another name"
