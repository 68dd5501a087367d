"""The targets of a set of images, drawn again without its synthesis."""

import pytest
from tiny import make_tiny

from vitdfq.synthesis import synthesize
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.synthesize import image_targets, presets_used


def optimized_classes(teacher, **options) -> list[int]:
    """The main class of each whole image, as a loss sees its target at the first step."""
    seen = {}

    def spy(ctx):
        seen.update({index: int(target.argmax()) for index, target in zip(ctx.indices, ctx.targets, strict=True)})
        return ctx.images.mean((1, 2, 3)) * 0

    synthesize(teacher, **options, losses={"spy": spy}, max_regions=1)
    return [seen[index] for index in sorted(seen)]


@pytest.mark.parametrize("method", ["psaq", "acq"])  # acq: pairs of images have one class
def test_they_are_those_of_the_optimization(method):
    teacher, options = make_tiny("vit"), {"method": method, "num_images": 7, "steps": 1, "labels": "hard", "seed": 3}
    targets = image_targets(teacher, SynthesisOptions(**options))
    assert [target.main_class for target in targets] == optimized_classes(teacher, **options)
    assert {target.labels for target in targets} == {"hard"}


def test_images_of_a_mix_have_classes_of_their_own_and_procedural_ones_none():
    teacher = make_tiny("vit")
    mixed = image_targets(teacher, SynthesisOptions(method="psaq", num_images=8, mix={"dead_leaves": 0.5}))
    alone = image_targets(teacher, SynthesisOptions(method="psaq", num_images=4))
    assert [target for target in mixed if target is not None] == alone and mixed.count(None) == 4
    for options in ({"method": "scenes"}, {"images": "pictures"}):
        assert image_targets(teacher, SynthesisOptions(**options, num_images=2)) == [None, None]


def test_presets_used_are_those_of_the_mix_that_suit_the_teacher(monkeypatch):
    teacher = make_tiny("vit")
    assert presets_used(teacher, SynthesisOptions(method="psaq", mix={"noise": 0.5})) == ["psaq", "noise"]
    assert presets_used(teacher, SynthesisOptions(images="pictures")) == []
    for suits, presets in ((True, ["scenes"]), (False, ["vitdfq"])):
        monkeypatch.setattr("vitdfq.synthesis.teacher_filter.NoiseReference.suits", lambda *args, suits=suits: suits)
        assert presets_used(teacher, SynthesisOptions(method="vitdfq")) == presets
