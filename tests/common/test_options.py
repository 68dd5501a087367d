"""Options from keywords: names, types and ranges."""

import re

import pytest

from vitdfq.common.options import build_options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"mix": ["noise"]}, "synthesize: mix is ['noise']; expected a mapping or None"),
        ({"prune_at": 0.5}, "synthesize: prune_at is 0.5; expected a list or None"),
        ({"precision": 16}, "synthesize: unknown precision 16; choices: bfloat16, float32"),
        ({"num_images": "4"}, "synthesize: num_images '4' is not a whole number of at least 1"),
        ({"seed": "4"}, "synthesize: seed is '4'; expected a whole number"),
        ({"seed": True}, "synthesize: seed is True; expected a whole number"),
    ],
)
def test_a_value_of_another_type_is_one_line(given, message):
    from vitdfq.synthesis.options import SynthesisOptions

    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        build_options(SynthesisOptions, given, "synthesize")


def test_a_whole_number_stands_for_a_rate_and_a_negative_one_is_refused():
    from vitdfq.calibration.reconstruct import ReconstructOptions

    assert build_options(ReconstructOptions, {"lr": 0}, "step").lr == 0
    with pytest.raises(ValueError, match=r"^step: scale_lr is -1; it must be at least 0$"):
        build_options(ReconstructOptions, {"scale_lr": -1}, "step")
