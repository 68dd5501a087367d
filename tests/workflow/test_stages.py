"""What the stages of a run know of its students before any is calibrated."""

import pytest

from vitdfq.recipe import load_recipe
from vitdfq.workflow.stages import RunStages


@pytest.mark.parametrize(("policy", "dynamic"), [("vitdfq", False), ("vitdfq_dynamic", True)])
def test_students_are_known_to_be_dynamic_at_every_number_of_bits(policy, dynamic, tiny_vit, tmp_path):
    recipe = load_recipe({"model": {"name": "zoo:vit"}, "quantize": {"bits": "w4a4", "policy": policy}})
    stages = RunStages(recipe, tmp_path, tiny_vit, tiny_vit)
    assert stages.makes_dynamic() == stages.makes_dynamic("w6a6") == dynamic
    assert not stages.makes_dynamic("w4a16")  # no activation is quantized
