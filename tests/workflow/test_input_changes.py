"""The inputs of an artifact, and the message about those that changed."""

import json

import pytest

from vitdfq.workflow.artifacts import describe_changes, flatten, mark_hash

BEFORE = {"model": {"name": "a", "size": (3, 4)}, "weights": mark_hash("1"), "calibrate": {"steps": ["observe"]}, "prepare": {}}


def test_inputs_survive_a_round_trip_through_json():
    recorded = flatten(BEFORE)
    assert recorded == json.loads(json.dumps(recorded))
    assert recorded == {"model.name": "a", "model.size": [3, 4], "weights": "sha256:1", "calibrate.steps": ["observe"]}
    names = flatten({"names": ["a name"] * 1000})["names"]
    assert names.startswith("sha256:") and names != flatten({"names": ["a name"] * 1001})["names"]


@pytest.mark.parametrize(
    ("now", "message"),
    [
        ({"model": {"name": "b", "size": [3, 4]}}, "model.name was a, is b"),
        ({"weights": mark_hash("2")}, "weights changed"),
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
        ({}, "its inputs have changed"),
    ],
)
def test_a_message_names_the_changes(now, message):
    assert describe_changes(flatten(BEFORE), flatten(BEFORE | now)).startswith(message)


def test_a_message_has_no_more_than_three_changes():
    assert describe_changes({}, dict.fromkeys("abcde", 1)).endswith("c was not set, is 1; 2 more")


@pytest.mark.parametrize("before", [None, [], "text"])
def test_a_damaged_record_has_no_changes_to_name(before):
    assert describe_changes(before, flatten(BEFORE)) == "its inputs have changed"
