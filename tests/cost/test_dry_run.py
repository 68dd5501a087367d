"""Every recipe can be planned without weights and without a network."""

from collections.abc import Callable

import pytest
from torch.utils.flop_counter import FlopCounterMode

from vitdfq.calibration import STEPS
from vitdfq.common.errors import RecipeError
from vitdfq.cost import timing
from vitdfq.cost.dry_run import plan
from vitdfq.cost.estimate import PASSES, Options, _synthesis_bytes
from vitdfq.models import load_teacher
from vitdfq.recipe import load_recipe, packaged_recipes
from vitdfq.synthesis import resolve_method

RECIPES = packaged_recipes()
QUICK = ("quickstart", "deit_t_w4a4", "paper_sardfq")  # planning runs the models: seconds for small ones
RUNNABLE = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in sorted(RECIPES)]
PAPERS = [named for named in RUNNABLE if named.values[0].startswith("paper_")]
NAMED = [
    named for named in RUNNABLE if named.values[0].startswith(("quickstart", "deit", "swin", "vit", "dino", "clip", "siglip"))
]


@pytest.fixture(autouse=True)
def counted_work(monkeypatch):
    """A second is 10^9 floating-point operations: a busy machine plans as an idle one."""

    def timed(run: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() / 1e9

    monkeypatch.setattr(timing, "timed", timed)


@pytest.mark.parametrize("name", NAMED)
def test_recipe_can_be_planned_offline(name):
    planned = plan(load_recipe(RECIPES[name]))
    bits = int(name[-1]) if name[-1].isdigit() else 4
    by_name = {site["name"]: site for site in planned.sites}
    assert by_name["patch_embed.proj"]["input_bits"] == [8]
    block = "layers.0.blocks.0" if "swin" in name else "blocks.0"
    assert by_name[f"{block}.mlp.fc1"]["weight_bits"] == bits
    assert by_name[f"{block}.attn.av"]["input_bits"] == [bits, bits]
    assert_has_costs(planned, name)


@pytest.mark.parametrize("name", PAPERS)
def test_recipe_of_a_paper_can_be_planned_offline(name):
    recipe = load_recipe(RECIPES[name])
    planned = plan(recipe)
    weight_bits = {site["weight_bits"] for site in planned.sites if site["weight_bits"]}
    assert weight_bits == {int(recipe.bits[1])}  # the head and the patch embedding too
    assert_has_costs(planned, name)


def assert_has_costs(planned, name):
    assert planned.model["packed_bytes"] < planned.model["parameters"] * 4
    assert planned.seconds["calibrate"] > 0 and planned.seconds["evaluate"] > 0
    assert (planned.seconds["synthesize"] > 0) == (planned.images["steps"] > 0)  # procedural images take no steps
    assert planned.to_dict()["recipe"] == name


def test_the_plan_says_what_is_rotated():
    clip = "model={name: vit_base_patch32_clip_224, img_size: 64, embed_dim: 32, depth: 1, num_heads: 2, num_classes: 10}"
    planned = plan(load_recipe("quickstart", [clip, "prepare.steps=[rotate_residual, rotate_heads]"]))
    assert planned.to_dict()["prepared"] == "rotated: the residual stream of 1 block, heads"
    assert "prepare     rotated: the residual stream of 1 block, heads" in planned.render().renderables


def test_sites_of_equal_bits_are_one_row_unless_all_are_wanted():
    tiny = "model={name: vit_tiny_patch16_224, img_size: 32, embed_dim: 24, depth: 3, num_heads: 2, num_classes: 10}"
    planned = plan(load_recipe("quickstart", [tiny, "quantize.overrides={blocks.1.mlp.fc2: {bits: 8}}"]))
    short, whole = (planned.render(all_sites=all_sites).renderables[-1] for all_sites in (False, True))
    assert [*short.columns[0].cells] == [
        "patch_embed.proj",
        *(f"blocks.0-2.{kind}" for kind in ("attn.qkv", "attn.proj", "attn.qk", "attn.av", "mlp.fc1")),
        "blocks.0,2.mlp.fc2",
        "blocks.1.mlp.fc2",
        "head",
    ]
    assert sum(map(int, short.columns[1].cells)) == len(planned.sites) == whole.row_count
    assert short.title == f"{len(planned.sites)} sites in 9 rows; --verbose: a row for each"
    assert [*whole.columns[0].cells] == [site["name"] for site in planned.sites] and whole.title == f"{len(planned.sites)} sites"


def test_neighbors_add_their_passes():
    clip = "model={name: vit_base_patch32_clip_224.openai, img_size: 64, embed_dim: 32, depth: 1, num_heads: 2}"
    evaluate = "evaluate={dataset: imagenet-1k, num_images: 1000}"
    plain = plan(load_recipe("clip_b_w8a8", [clip, evaluate]))
    knn = plan(load_recipe("clip_b_w8a8", [clip, evaluate, "evaluate.knn={split: train, num_images: 9000}"]))
    assert plain.model["gives"] == "embedding" and plain.images["evaluated_on"] == "1,000 images of imagenet-1k, features alone"
    assert knn.images["evaluated_on"] == "1,000 images of imagenet-1k, classes read by knn"
    assert knn.seconds["evaluate"] == pytest.approx(10 * plain.seconds["evaluate"])


def test_the_threshold_of_the_other_kind_is_refused():
    clip = "model={name: vit_base_patch32_clip_224.openai, img_size: 64, embed_dim: 32, depth: 1, num_heads: 2}"
    with pytest.raises(RecipeError, match="min_agreement: this model gives features, whose gate is min_cosine"):
        plan(load_recipe("clip_b_w8a8", [clip, "min_agreement=50"]))
    with pytest.raises(RecipeError, match="min_cosine: this model gives classes, whose gate is min_agreement"):
        plan(load_recipe("quickstart", ["min_cosine=0.5"]))


def test_training_is_most_of_the_time_of_a_calibration():
    trained, rounded = (plan(load_recipe("quickstart", [f"quantize.bits={bits}", "calibrate={}"])) for bits in ("w4a4", "w7a7"))
    assert trained.seconds["calibrate"] > 10 * rounded.seconds["calibrate"]


def test_cost_grows_with_the_steps():
    few, many = (plan(load_recipe("quickstart", [f"synthesize.steps={steps}"])).seconds["synthesize"] for steps in (10, 10_000))
    assert many > 50 * few


def test_presets_that_prune_tokens_are_planned_for_a_swin_which_keeps_all():
    planned = plan(load_recipe("quickstart", ["model.name=zoo:swin", "synthesize.method=smi"]))
    assert planned.seconds["synthesize"] > 0


def test_procedural_images_that_are_noise_to_the_teacher_are_optimized_instead():
    """So it is with the zoo's teacher. Without its weights the mixture is planned as it stands."""
    changes = ["synthesize.method=vitdfq", "synthesize.steps=50"]
    trained, random = (plan(load_recipe("quickstart", [*changes, *more])) for more in ([], ["model.pretrained=false"]))
    assert trained.seconds["synthesize"] > 1.3 * random.seconds["synthesize"]


def test_every_step_of_calibration_has_a_cost():
    assert set(PASSES) == set(STEPS)


@pytest.mark.slow
def test_memory_grows_with_the_batch():
    small, large = (
        plan(load_recipe("quickstart", ["model.name=vit_tiny_patch16_224", f"synthesize.batch_size={size}"])) for size in (1, 64)
    )
    assert large.peak_bytes["synthesize"] - small.peak_bytes["synthesize"] > 5e8  # this process's memory before is in both
    assert set(small.peak_bytes) == set(small.seconds)


def test_memory_of_a_generator_does_not_grow_with_the_images():
    """It trains on batches of its own size, one of which the timings have run already."""
    teacher = load_teacher("zoo:deit")
    additional = {
        name: _synthesis_bytes(teacher, Options(num_images=512, batch_size=512, method=resolve_method(name)), probe_images=2)
        for name in ("gdfq", "smi")
    }
    assert additional["gdfq"] == 0 < additional["smi"]
