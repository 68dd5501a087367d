"""The works that a card lists are those of the methods that the run used, and of no other."""

import pytest

from vitdfq.hub.citations import citations

METRICS = {"synthesis": {"method": "psaq", "presets": ["psaq"]}, "student": {"weight_bits": 8, "activation_bits": 8}}
CONFIG = {"vitdfq": {"prepare": {"steps": []}, "quantize": {"bits": "w8a8"}}}


def lines(metrics=None, recipe=None, config=None) -> list[str]:
    recipe = {"synthesize": {"method": "psaq"}, "calibrate": {"steps": ["observe"]}} | (recipe or {})
    return citations(METRICS | (metrics or {}), recipe, {"vitdfq": CONFIG["vitdfq"] | (config or {})})


def test_a_preset_its_losses_and_nothing_else():
    works = lines()
    assert [line.split(",")[0] for line in works] == ["PSAQ-ViT", "SARDFQ"]  # of its cross-entropy, SARDFQ is a source too
    link = "[arXiv 2203.02250](https://arxiv.org/abs/2203.02250)"
    assert works[0].startswith(f"PSAQ-ViT, {link}: images `psaq`, loss `patch_similarity`")


def test_a_loss_that_is_switched_off_is_not_cited():
    off = {"synthesize": {"method": "psaq", "losses": {"class_confidence": {"weight": 0}}}}
    assert [line.split(",")[0] for line in lines(recipe=off)] == ["PSAQ-ViT"]


@pytest.mark.parametrize(
    ("changes", "work"),
    [
        ({"recipe": {"calibrate": {"steps": ["observe", "gptq"]}}}, "GPTQ"),
        ({"recipe": {"calibrate": {"steps": ["observe", {"reconstruct": {"rounding": "adaround"}}]}}}, "AdaRound"),
        ({"recipe": {"calibrate": {}}}, "GPTQ"),  # one of the default steps
        ({"config": {"prepare": {"steps": ["rotate_heads"]}}}, "QuaRot"),
        ({"config": {"quantize": {"policy": "ptq4vit"}}}, "PTQ4ViT"),
        ({"config": {"quantize": {"softmax": {"quantizer": "adalog"}}}}, "AdaLog"),
        ({"config": {"quantize": {"overrides": {"*": {"softmax": {"quantizer": "shifted_log2"}}}}}}, "I&S-ViT"),
        ({"metrics": {"synthesis": {"method": "psaq", "presets": ["psaq", "dead_leaves"]}}}, "dead leaves"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_part_of_a_run_is_cited(changes, work):
    assert any(line.startswith(work) for line in lines(**changes))
    assert not any(line.startswith(work) for line in lines())


def test_own_images_and_earlier_metrics():
    own = {"synthesize": {"images": "pictures"}}
    assert lines({"synthesis": {"method": "own", "presets": []}}, own) == []
    assert lines({"synthesis": {"method": "psaq"}}) == lines()  # of versions that did not record the presets
