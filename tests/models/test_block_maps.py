"""Maps behind blocks as outputs: timm's, exact after `prepare`, rebuilt from the description, refused in one line."""

import copy

import pytest
import timm
import torch
from tiny import TINY, make_tiny

from vitdfq.models import build, gives, image_size, load_teacher
from vitdfq.models.block_maps import in_one, map_names
from vitdfq.models.same_model import first_difference
from vitdfq.preparation import prepare
from vitdfq.preparation.why_not import why_not_residual
from vitdfq.recipe import load_recipe

ARGUMENTS = {kind: {key: value for key, value in TINY[kind][1].items() if key != "num_classes"} for kind in TINY}
WITH_MAPS = [
    kind for kind in TINY if hasattr(make_tiny(kind), "prune_intermediate_layers") and not hasattr(make_tiny(kind), "watched")
]


def with_maps(kind: str, outputs: list[int]) -> torch.nn.Module:
    return load_teacher(make_tiny(kind), outputs=outputs, **ARGUMENTS[kind])


@pytest.fixture(params=WITH_MAPS)
def kind(request):
    return request.param


@torch.no_grad()
def test_the_maps_are_those_of_timm_and_stay_when_prepared(kind):
    whole, teacher = make_tiny(kind), with_maps(kind, [0, 1])
    images = torch.randn(2, 3, *image_size(whole), generator=torch.Generator().manual_seed(0))
    expected = whole.forward_intermediates(images, indices=[0, 1], norm=True, intermediates_only=True)
    maps, prepared = teacher(images), prepare(teacher)
    assert gives(teacher) == "features" and all(map(torch.equal, maps, expected))
    for before, after in zip(maps, prepared(images), strict=True):
        assert (after - before).norm() < 1e-5 * before.norm()
    steps = prepared.vitdfq["prepare"]["steps"]
    assert ("rotate_residual" in steps) == (map_names(teacher)[0] == "block_0" and not why_not_residual(whole))


def test_the_description_builds_it_again(kind):
    teacher = with_maps(kind, [1])
    rebuilt = build(copy.deepcopy(teacher.vitdfq))
    assert first_difference(teacher, rebuilt) is None and rebuilt.vitdfq == teacher.vitdfq
    assert list(rebuilt.state_dict()) == list(teacher.state_dict())
    assert first_difference(with_maps(kind, [0, 1]), rebuilt) == "block_maps is (0, 1), not (1,)"
    teacher.forward = lambda x: x
    assert first_difference(teacher, rebuilt) == "the module itself has a forward of its own, set after it was built"


def test_blocks_behind_the_last_map_and_the_head_are_gone():
    teacher = with_maps("vit", [0, 1])
    assert not any(name.startswith(("blocks.2", "head.")) for name in teacher.state_dict())
    assert map_names(teacher) == ["block_0", "block_1"] and map_names(with_maps("swin", [1])) == ["stage_1"]


@pytest.mark.parametrize("outputs", [[], [-1], [3], [1, 0], [1, 1], [True], ["1"], 2], ids=str)
def test_wrong_outputs_are_refused_in_one_line(outputs):
    with pytest.raises(ValueError, match=r"outputs is .*; expected indexes of blocks .* 0 to 2, ascending") as caught:
        with_maps("vit", outputs)
    assert "\n" not in str(caught.value)


def test_outputs_and_classes_do_not_go_together():
    with pytest.raises(ValueError, match=r"outputs gives maps and no classes: num_classes=10"):
        load_teacher("vit_tiny_patch16_224", pretrained=False, outputs=[1], num_classes=10)


def test_a_recipe_names_outputs():
    assert load_recipe({"model": {"name": "vit_tiny_patch16_224", "outputs": [2, 5]}}).model["outputs"] == [2, 5]


def test_maps_in_one_tensor():
    a, b = torch.ones(2, 3, 2, 2), torch.zeros(2, 1, 1, 1)
    assert in_one((a, b)).shape == (2, 13) and in_one(a) is a


def test_a_name_and_a_module_give_the_same_structure():
    name, arguments = TINY["vit"][0], ARGUMENTS["vit"]
    named = load_teacher(name, pretrained=False, outputs=[1], **arguments)
    module = load_teacher(timm.create_model(name, **arguments), outputs=[1], **arguments)
    assert first_difference(named, module) is None
