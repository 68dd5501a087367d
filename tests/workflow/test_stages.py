"""What the stages of a run know of its students before any is calibrated."""

import pytest

from vitdfq.recipe import load_recipe
from vitdfq.workflow.stages import RunStages


@pytest.mark.parametrize(("policy", "dynamic"), [("vitdfq", False), ("vitdfq_dynamic", True)])
def test_students_are_known_to_be_dynamic_at_every_number_of_bits(policy, dynamic, tiny_vit, tmp_path):
    recipe = load_recipe({"model": {"name": "zoo:vit"}, "quantize": {"bits": "w4a4", "policy": policy}})
    stages = RunStages(recipe, tmp_path, tiny_vit, tiny_vit)
    named = {"dynamic": dynamic, "mixed": None}
    assert stages.named_by() == stages.named_by("w6a6") == named
    assert not stages.named_by("w4a16")["dynamic"]  # no activation is quantized


def test_students_with_bits_by_layer_are_known_as_mixed(tiny_vit, tmp_path):
    overrides = {"*.attn.*": {"bits": 2}, "*.fc1": {"bits": 6}}
    recipe = load_recipe({"model": {"name": "zoo:vit"}, "quantize": {"bits": "w4a4", "overrides": overrides}})
    stages = RunStages(recipe, tmp_path, tiny_vit, tiny_vit)
    assert stages.named_by()["mixed"] == stages.named_by("w4a4")["mixed"] == pytest.approx(4.0, abs=1.0)
