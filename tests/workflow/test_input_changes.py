import json

import pytest

from vitdfq.workflow.artifacts import flat, hashed, what_changed

BEFORE = {"model": {"name": "a", "size": (3, 4)}, "weights": hashed("1"), "calibrate": {"steps": ["observe"]}, "prepare": {}}


def test_inputs_are_kept_as_json_gives_them_back():
    kept = flat(BEFORE)
    assert kept == json.loads(json.dumps(kept))
    assert kept == {"model.name": "a", "model.size": [3, 4], "weights": "sha256:1", "calibrate.steps": ["observe"]}
    names = flat({"names": ["a name"] * 1000})["names"]
    assert names.startswith("sha256:") and names != flat({"names": ["a name"] * 1001})["names"]


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"model": {"name": "b", "size": [3, 4]}}, "model.name was a, is b"),
        ({"weights": hashed("2")}, "weights changed"),
        ({"calibrate": {"steps": ["observe", "gptq"]}}, 'calibrate.steps was ["observe"], is ["observe", "gptq"]'),
        ({"calibrate": {}}, 'calibrate.steps was ["observe"], is not set'),
        ({"calibrate": {"steps": ["observe"], "seed": 1}}, "calibrate.seed was not set, is 1"),
        ({"calibrate": {"steps": ["observe"], "seed": None}}, "calibrate.seed was not set, is null"),
        (
            {"model": {}, "calibrate": {}, "more": 1},
            "more was not set, is 1; model.name was a, is not set; model.size was [3, 4],",
        ),
        ({"prepare": None}, "prepare was not set, is null"),
        ({"prepare": {"a": "x" * 100}}, "prepare.a was not set, is " + "x" * 60 + " ..."),
        ({}, "what shapes it has changed"),
    ],
)
def test_what_changed(now, said):
    assert what_changed(flat(BEFORE), flat(BEFORE | now)).startswith(said)


def test_of_many_changes_some_are_told():
    assert what_changed({}, dict.fromkeys("abcde", 1)).endswith("c was not set, is 1; 2 more")


@pytest.mark.parametrize("before", [None, [], "text"])
def test_a_record_that_says_nothing(before):
    assert what_changed(before, flat(BEFORE)) == "what shapes it has changed"
