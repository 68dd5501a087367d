"""The whole call, on tiny teachers."""

from functools import partial

import pytest
import torch
from contexts import make_context, weighted_total
from tiny import make_tiny

from vitdfq.models import attention_sites, image_range, image_size, untouched
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.synthesis import LOSSES, METHODS, Loss, synthesize
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.synthesize import keep_batches

KINDS = ("vit", "deit", "swin", "levit")
SMOOTH = KINDS[:3]  # behind a random convolutional stem, steps of .25 overshoot, and rounding grows


def steps_of(method, steps):
    return {"steps": 0 if METHODS[method].steps == 0 else steps}


def attentions(teacher):
    return [module for module in teacher.modules() if hasattr(module, "qk")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_on_every_family(method, kind):
    if METHODS[method].prune_at and not attention_sites(make_tiny(kind))[-1].class_row:
        pytest.skip("no class token chooses patches, see test_sparsity.py")
    teacher = make_tiny(kind)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    random_state = torch.get_rng_state()
    images = synthesize(teacher, method=method, num_images=3, batch_size=2, **steps_of(method, 3))
    low, high = image_range(teacher)
    assert images.shape == (3, 3, *image_size(teacher))
    assert (images.dtype, images.device.type, images.requires_grad) == (torch.float32, "cpu", False)
    assert ((images >= low) & (images <= high)).all()
    assert images.std() > 0.1
    # The teacher is left as it was, and so is the global random state.
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(untouched(module.qk, module.softmax, module.av) for module in attentions(teacher))
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["sardfq", "psaq"])
def test_an_image_depends_on_neither_batch_size_nor_number_of_images(method, kind, monkeypatch):
    """In double precision: Adam divides by the gradient, so where it is nearly 0 its rounding moves a pixel."""
    monkeypatch.setitem(PROCEDURAL, "noise", lambda *args, noise=PROCEDURAL["noise"]: noise(*args).double())
    teacher = make_tiny(kind).double()
    together = synthesize(teacher, method=method, num_images=4, batch_size=4, steps=4)
    in_twos = synthesize(teacher, method=method, num_images=4, batch_size=2, steps=4)
    fewer = synthesize(teacher, method=method, num_images=3, batch_size=1, steps=4)
    torch.testing.assert_close(in_twos, together, rtol=0, atol=1e-7)
    torch.testing.assert_close(fewer, together[:3], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "changes", [{"method": "ris"}, {"method": "agm"}, {"method": "psaq", "parametrization": "decoder"}], ids=str
)
def test_images_that_depend_on_each_other_do_so_in_groups_of_a_fixed_size(changes):
    teacher = make_tiny("vit")
    make = partial(synthesize, teacher, steps=3, **changes)
    together = make(num_images=6, batch_size=6, group_size=4)
    assert torch.equal(make(num_images=6, batch_size=1, group_size=4), together)
    assert torch.equal(make(num_images=4, batch_size=4, group_size=4), together[:4])
    assert (make(num_images=6, group_size=6) - together).abs().max() > 1e-3


@pytest.mark.parametrize("kind", SMOOTH)
def test_an_image_depends_on_no_batch_in_single_precision(kind):
    teacher = make_tiny(kind)
    together, in_twos = (synthesize(teacher, method="sardfq", num_images=4, batch_size=size, steps=4) for size in (4, 2))
    torch.testing.assert_close(in_twos, together, rtol=0, atol=5e-4)  # CPUs differ: 1.4e-4 seen


@pytest.mark.parametrize("method", METHODS)
def test_the_seed_decides(method):
    teacher = make_tiny("vit")
    first, again, other = (
        synthesize(teacher, method=method, num_images=2, seed=seed, **steps_of(method, 4)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert (first - other).abs().mean() > 0.1
    assert (first[0] - first[1]).abs().mean() > 0.1


@pytest.mark.parametrize("kind", SMOOTH)
def test_sardfq_lowers_its_objective(kind):
    teacher = make_tiny(kind)
    start = synthesize(teacher, method="noise", num_images=3)
    images = synthesize(teacher, method="sardfq", num_images=3, steps=40)
    losses = METHODS["sardfq"].losses
    before, after = (weighted_total(*make_context(teacher, x, losses, max_regions=4)) for x in (start, images))
    assert (after < before).all()


# Without: what a random teacher and its student disagree on is rounding; and a loss for BatchNorm.
# Robustness alone makes images alike, and their distance is its unit: it may rise; see its descent in test_ris_losses.py.
LOWERED = sorted(LOSSES.keys() - {"discrepancy", "margin_discrepancy", "batch_norm_statistics", "perturbation_robustness"})
LOWERED_WITH = {
    "norm_statistics": {"hinge": 0.0},
    "statistics_prior": {"hinge": 0.0},
    # A random teacher looks everywhere alike: gradients beside Adam's eps. And three blocks drop paths at random: smaller steps.
    "mode_consistency": {"weight": 1e4, "rate": 0.9, "draws": 4},
}


@pytest.mark.parametrize("name", LOWERED)
def test_each_loss_alone_is_lowered(name):
    teacher = make_tiny("vit")
    losses = {other: {"weight": 0} for other in LOSSES} | {name: {"weight": 1.0} | LOWERED_WITH.get(name, {})}
    start = synthesize(teacher, method="noise", num_images=3)
    images = synthesize(
        teacher,
        method="sardfq",
        num_images=3,
        steps=40,
        lr=0.05 if name == "mode_consistency" else None,
        max_regions=1,
        losses=losses,
    )
    before, after = (weighted_total(*make_context(teacher, x, losses)).mean() for x in (start, images))
    assert after < before


def test_noise_is_the_starting_point():
    teacher = make_tiny("vit")
    noise = synthesize(teacher, method="noise", num_images=2)
    unmoved = synthesize(teacher, method="sardfq", num_images=2, steps=0)
    nearly = synthesize(teacher, method="sardfq", num_images=2, steps=2, lr=1e-6)
    assert torch.equal(noise, unmoved)
    torch.testing.assert_close(nearly, noise, rtol=0, atol=1e-4)


class Spy:
    """A loss of the user's own that keeps what it was shown."""

    def __init__(self):
        self.seen = []

    def __call__(self, ctx):
        drawn = {name: {key: draw.clone() for key, draw in draws.items()} for name, draws in ctx.drawn.items()}
        self.seen.append((ctx.step, len(ctx.images), sorted(ctx.recorded), drawn, ctx.images.detach().clone()))
        return ctx.images.square().mean((1, 2, 3))


def test_priors_are_fixed_through_the_run():
    spy = Spy()
    synthesize(
        make_tiny("vit"), method="sardfq", num_images=2, steps=4, max_regions=1, losses={"spy": {"function": spy, "weight": 0.1}}
    )
    assert [step for step, *_ in spy.seen] == [0, 1, 2, 3]
    priors = [drawn["attention_prior"] for _, _, _, drawn, _ in spy.seen]
    for later in priors[1:]:
        assert all(torch.equal(later[name], priors[0][name]) for name in priors[0])
    one, other = priors[0]["blocks.2.attn"]
    assert not torch.equal(one, other)


def test_two_passes_an_iteration_no_larger_than_the_batch_size():
    spy = Spy()
    synthesize(make_tiny("vit"), method="sardfq", num_images=4, batch_size=4, steps=2, losses={"spy": spy})
    sizes = [(step, count) for step, count, *_ in spy.seen]
    crops = sum(count for step, count in sizes if step == 0) - 4
    assert crops > 4
    assert sizes[0] == (0, 4)
    assert max(count for _, count in sizes) == 4
    assert {step for step, _ in sizes} == {0, 1}


def test_sub_crops_are_fresh_at_every_iteration():
    """With a vanishing learning rate and the same jitter, views differ by their crop alone."""
    spy = Spy()
    synthesize(make_tiny("vit"), method="sardfq", num_images=4, batch_size=16, steps=12, lr=1e-9, losses={"spy": spy})
    whole = [images.mean() for _, count, _, _, images in spy.seen if count == 4]
    crops = [images.mean() for _, count, _, _, images in spy.seen if count != 4]
    assert len(whole) == len(crops) == 12
    assert len({round(mean.item(), 4) for mean in whole}) == 1  # a roll and a flip keep the mean
    assert len({round(mean.item(), 4) for mean in crops}) > 8


@pytest.mark.parametrize(
    ("method", "losses", "recorded"),
    [
        ("sardfq", {}, ["blocks.1.attn.class_row", "blocks.2.attn.class_row"]),
        ("psaq", {}, ["blocks.0.attn.av", "blocks.1.attn.av", "blocks.2.attn.av"]),
        ("sardfq", {"attention_prior": {"weight": 0}}, []),
    ],
)
def test_only_what_a_loss_listens_to_is_recorded(method, losses, recorded):
    teacher, fused = make_tiny("vit"), []

    def spy(ctx):
        fused.append([untouched(module.qk, module.softmax, module.av) for module in attentions(teacher)])
        assert sorted(ctx.recorded) == recorded
        return ctx.images.square().mean((1, 2, 3))

    synthesize(teacher, method=method, num_images=1, steps=1, max_regions=1, losses={**losses, "spy": spy})
    assert fused == [["blocks.0.attn.av" not in recorded] * 3]  # a class token's row is computed beside fused attention


def test_a_loss_of_ones_own_may_draw_and_listen():
    def attract(ctx, power=2):
        assert ctx.recorded["blocks.0.attn.av"].shape[0] == len(ctx.images)
        return (ctx.images - ctx.drawn["attract"]["goal"].view(-1, 1, 1, 1)).abs().pow(power).mean((1, 2, 3))

    mine = Loss(
        attract,
        listens=lambda facts: [f"{site.name}.av" for site in facts.sites],
        draw=lambda rng, facts: {"goal": torch.rand((), generator=rng)},
    )
    losses = {name: {"weight": 0} for name in METHODS["sardfq"].losses} | {"attract": {"function": mine, "power": 1}}
    images = synthesize(make_tiny("vit"), method="sardfq", num_images=2, steps=60, max_regions=1, losses=losses)
    assert images.flatten(1).std(dim=1).max() < 0.3  # each drawn to one gray
    assert abs(images[0].mean() - images[1].mean()) > 0.01


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named(bad):
    def mine(ctx):
        return ctx.images.mean((1, 2, 3)) * (bad if ctx.step == 2 else 1.0)

    with pytest.raises(ValueError, match=r"loss 'mine' is (nan|-?inf) at step 2"):
        synthesize(make_tiny("vit"), method="sardfq", num_images=2, steps=5, losses={"mine": mine})


def test_an_image_whose_loss_stops_being_finite_begins_again_at_half_the_rate_and_the_others_stay(caplog, monkeypatch):
    monkeypatch.setitem(PROCEDURAL, "noise", lambda *args, noise=PROCEDURAL["noise"]: noise(*args).double())
    teacher, seen = make_tiny("vit").double(), []

    def mine(ctx):
        """Image 1 breaks at its third step, twice."""
        value = ctx.images.square().mean((1, 2, 3))
        if 1 in ctx.indices and ctx.step == 2 and len(seen) < 2:
            seen.append(1)
            value = torch.where(torch.tensor(ctx.indices) == 1, torch.inf, value)
        return value

    make = partial(synthesize, teacher, method="sardfq", num_images=3, steps=5, max_regions=1)
    images = make(losses={"mine": {"function": mine}})
    undisturbed = make(losses={"mine": {"function": lambda ctx: ctx.images.square().mean((1, 2, 3))}})
    torch.testing.assert_close(images[[0, 2]], undisturbed[[0, 2]], rtol=0, atol=1e-5)
    assert (images[1] - undisturbed[1]).abs().max() > 0.01
    assert "images 1 again at 0.5 of the rate: loss 'mine' is inf at step 2" in caplog.text
    assert "images 1 again at 0.25" in caplog.text


def test_wrong_calls_are_refused():
    teacher = make_tiny("vit")
    with pytest.raises(ValueError, match="one value an image"):
        synthesize(teacher, num_images=2, steps=1, losses={"mine": lambda ctx: ctx.images.mean()})
    with pytest.raises(ValueError, match="num_images"):
        synthesize(teacher, num_images=0)
    with pytest.raises(ValueError, match=r"training mode: call model.eval\(\)"):
        synthesize(teacher.train(), num_images=1)


def test_works_inside_no_grad():
    with torch.no_grad():
        images = synthesize(make_tiny("vit"), num_images=1, steps=2)
    assert torch.equal(images, synthesize(make_tiny("vit"), num_images=1, steps=2))


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_gives_the_images_of_the_cpu(method):
    teacher = make_tiny("vit")
    on_cpu = synthesize(teacher, method=method, num_images=3, **steps_of(method, 4))
    on_gpu = synthesize(teacher.cuda(), method=method, num_images=3, **steps_of(method, 4))
    torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "num_kept"),
    [
        ({}, {7: 4, 4: 4, 3: 2, 1: 0}),  # batches of two, whole in both sets
        ({"method": "ris", "group_size": 3}, {7: 3, 4: 3, 3: 3, 1: 0}),
        ({"mix": {"noise": 0.5}}, {7: 2, 4: 2, 3: 2, 1: 0}),  # noise takes no time
        ({"method": "noise", "steps": None}, {7: 0}),
    ],
    ids=str,
)
def test_images_of_another_number_are_used_again(changes, num_kept, tiny_vit, tmp_path):
    keywords = {"method": "psaq", "steps": 2, "batch_size": 2} | changes
    images = synthesize(tiny_vit, num_images=5, **keywords)
    for number, expected in num_kept.items():
        run = SharedRun(PartialResults(tmp_path / str(number)))
        options = SynthesisOptions(num_images=number, **keywords)
        assert keep_batches(images, tiny_vit, options, run) == expected
        assert torch.equal(synthesize(tiny_vit, options=options, run=run), synthesize(tiny_vit, options=options))
