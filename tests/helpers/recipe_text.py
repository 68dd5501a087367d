"""A recipe as text, and a check that another one is refused in one line."""

import pytest

from vitdfq.recipe import load_recipe

RECIPE = """\
# What      a small one
seed: 3
model:
  name: zoo:vit
synthesize:
  method: sardfq
  num_images: 4
  losses:
    attention_prior: {weight: 10}
quantize:
  bits: w4a4
  overrides:
    "blocks.0.*": {bits: 8}
calibrate:
  steps:
    - observe
    - reconstruct: {iterations: 3, lr: 1.0e-3}
evaluate: {dataset: zoo:fashion-mnist, split: test}
baselines: [noise]
"""


def refusal(error: type[Exception], source, *overrides: str) -> str:
    """Return the message with which `load_recipe` refuses a recipe; it must be one line."""
    with pytest.raises(error) as caught:
        load_recipe(source, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)
