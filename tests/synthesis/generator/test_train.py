"""The generator engine, on tiny teachers."""

import pytest
import torch
from contexts import make_context, weighted_total
from dying import run_to_the_end
from tiny import make_tiny

import vitdfq
from vitdfq.models import image_range, image_size, load_teacher
from vitdfq.synthesis import METHODS, Loss, TeacherFacts, resolve_method, synthesize, train_generator
from vitdfq.synthesis.generator import network
from vitdfq.synthesis.generator.train import Sampler
from vitdfq.synthesis.objective.students import make_learner, refresh
from vitdfq.synthesis.objective.weighted_losses import resolve_losses
from vitdfq.training.trainable import divergence

KINDS = ("vit", "deit", "swin")


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Tiny teachers get a small generator."""
    monkeypatch.setattr(network, "WIDTHS", (32, 16, 16, 16, 16))


def train(teacher, steps, batch_size=16, seed=0, own=None, **changes):
    method = resolve_method("gdfq", changes.pop("losses", None), steps=steps, **changes)
    return train_generator(teacher, method, batch_size=batch_size, seed=seed, student=own)


def asked_for(trained, count):
    return torch.cat([classes for _, classes in trained.sampler.batches(0, count, count)])


def following(teacher, trained, count=100):
    """Share of images in which the teacher sees the class that the generator was asked for."""
    return (teacher(trained.draw(count, 50)).argmax(1) == asked_for(trained, count)).float().mean().item()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_every_preset_with_a_generator(method, kind):
    teacher = make_tiny(kind)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    random_state = torch.get_rng_state()
    steps = {"steps": 0 if METHODS[method].steps == 0 else 2}
    images = synthesize(teacher, method=method, engine="generator", num_images=3, group_size=4, **steps)
    low, high = image_range(teacher)
    assert images.shape == (3, 3, *image_size(teacher))
    assert (images.dtype, images.device.type, images.requires_grad) == (torch.float32, "cpu", False)
    assert ((images >= low) & (images <= high)).all()
    assert images.std() > 0.1
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in teacher.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_seed_decides_generator_and_student():
    teacher = make_tiny("vit")
    first, again, other = (train(teacher, 4, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.draw(2), again.draw(2))
    assert (first.draw(2) - other.draw(2)).abs().mean() > 0.1
    pupils = [synthesize(teacher, method="gdfq", num_images=2, steps=3, group_size=4, student="w4a4") for _ in range(2)]
    assert torch.equal(*pupils)


@pytest.mark.parametrize("kind", KINDS)
def test_a_drawn_image_depends_on_no_other(kind):
    trained = train(make_tiny(kind), 3)
    together = trained.draw(6, 6)
    torch.testing.assert_close(trained.draw(6, 4), together, rtol=0, atol=1e-5)
    torch.testing.assert_close(trained.draw(2, 1, first=3), together[3:5], rtol=0, atol=1e-5)
    assert torch.pdist(together.flatten(1)).min() > 1


def test_classes_take_turns():
    assert sorted(asked_for(train(make_tiny("vit"), 1), 20).tolist()) == sorted([*range(10)] * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_falls(kind):
    teacher, losses = make_tiny(kind), METHODS["gdfq"].losses
    start, end = (train(teacher, steps).draw(20) for steps in (1, 40))
    before, after = (weighted_total(*make_context(teacher, images, losses, labels="hard")).mean() for images in (start, end))
    assert after < before - 0.3


@pytest.mark.integration
def test_images_show_the_class_asked_for():
    teacher = load_teacher("zoo:vit")  # a tiny one of random weights hardly tells images apart
    untrained, trained = train(teacher, 1), train(teacher, 50)
    assert following(teacher, untrained) < 0.25
    assert following(teacher, trained) > 0.3  # chance is .1


@pytest.mark.slow
def test_a_generator_of_full_width_gets_most_classes_right(monkeypatch):
    monkeypatch.undo()
    teacher = load_teacher("zoo:vit")
    assert following(teacher, train(teacher, 200, batch_size=32)) > 0.5


def test_a_student_learns_in_turn():
    teacher = make_tiny("vit")
    trained = train(teacher, 60, student="w4a4")
    images = trained.draw(64)
    untaught = make_learner(teacher, "w4a4")
    refresh(untaught, images)
    taught, before = (divergence(student(images), teacher(images)).item() for student in (trained.student, untaught))
    assert taught < 0.8 * before
    assert not any(parameter.requires_grad for parameter in trained.student.parameters())
    assert trained.student.state_dict().keys() == untaught.state_dict().keys()


def test_the_student_that_learned_is_a_result(tmp_path):
    """Any bits: losses that compare with a student see this one."""
    teacher = make_tiny("vit")
    method = resolve_method("agm", engine="generator", student="w3a3", steps=4)
    trained = train_generator(teacher, method, batch_size=8)
    images = trained.draw(4)
    saved = vitdfq.load(vitdfq.save(trained.student, tmp_path / "student"))
    assert saved.vitdfq["quantize"]["bits"] == "w3a3"
    with torch.no_grad():
        assert torch.equal(saved(images), trained.student(images))


def test_ones_own_student_learns_in_place():
    teacher = make_tiny("vit")
    student = make_learner(teacher, "w3a3")
    refresh(student, torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    before = {name: value.clone() for name, value in student.state_dict().items()}
    trained = train(teacher, 4, own=student)
    assert trained.student is student
    moved = {name for name, value in student.state_dict().items() if not torch.equal(value, before[name])}
    assert "blocks.1.attn.qkv.weight" in moved
    scale = "blocks.1.attn.qkv.input_quantizer.scale"  # learned, not fitted anew to other images
    assert 0 < (student.state_dict()[scale] / before[scale] - 1).abs().amax() < 0.01


def compare(seen, bits):
    """A loss that asks for a student, and what it was given."""

    def passes(ctx, networks):
        student = networks.student(bits, ctx.images.detach(), ctx.step, 1)
        seen.append((student, student.blocks[0].mlp.fc1.weight.detach().clone()))
        return [networks.run(ctx.images, student)]

    def function(ctx):
        return (ctx.logits - ctx.passes["compare"][0].logits).square().mean(1)

    return {"compare": {"function": Loss(function, passes=passes)}}


def test_losses_see_the_student_that_learns():
    seen = []
    trained = train(make_tiny("vit"), 4, losses=compare(seen, "w4a4"), student="w4a4")
    assert all(student is trained.student for student, _ in seen)
    assert not torch.equal(seen[0][1], seen[-1][1])


def test_a_loss_that_wants_another_student_is_refused():
    with pytest.raises(ValueError, match="bits 'w8a8', but the one that learns here has 'w4a4'"):
        train(make_tiny("vit"), 4, losses=compare([], "w8a8"), student="w4a4")


def brightness(told):
    """Asks for a brightness that it draws, and tells the generator which, or does not."""
    return Loss(
        lambda ctx: (ctx.images.mean((1, 2, 3)) - ctx.drawn["brightness"]["goal"]).square(),
        draw=lambda rng, facts: {"goal": torch.rand((), generator=rng) - 0.5},
        condition="goal" if told else None,
    )


@pytest.mark.parametrize("told", [True, False])
def test_a_generator_does_what_a_loss_tells_it(told):
    off = {name: {"weight": 0} for name in METHODS["gdfq"].losses}
    trained = train(make_tiny("vit"), 60, losses=off | {"brightness": brightness(told)})
    goals = torch.stack([trained.sampler.samples(range(i, i + 1)).views.drawn["brightness"]["goal"][0] for i in range(80)])
    correlation = torch.corrcoef(torch.stack([goals, trained.draw(80).mean((1, 2, 3))]))[0, 1]
    assert (correlation > 0.5) == told


def test_a_loss_that_is_not_finite_is_named():
    losses = {"mine": lambda ctx: ctx.images.mean((1, 2, 3)) * (float("nan") if ctx.step == 2 else 1.0)}
    with pytest.raises(ValueError, match="loss 'mine' is nan at step 2"):
        train(make_tiny("vit"), 4, losses=losses)


@pytest.mark.parametrize("student", [None, "w4a4"])
def test_a_training_that_broke_goes_on_from_its_last_sound_state_at_half_the_rate(student, caplog):
    """Two steps of forty are broken once each: both are done again."""
    broken, rates = {11, 21}, []

    def mine(ctx):
        rates.append(ctx.step)
        if ctx.step in broken:
            broken.discard(ctx.step)
            return ctx.images.mean((1, 2, 3)) * float("nan")
        return ctx.images.mean((1, 2, 3))

    trained = train(make_tiny("vit"), 40, losses={"mine": mine}, student=student)
    assert rates == [*range(12), *range(10, 22), *range(20, 40)]
    assert trained.draw(4).isfinite().all()
    messages = [message for message in caplog.messages if "again" in message]
    assert messages[0].startswith("synthesize: from step 10 on again at 0.5 of the rate: loss 'mine' is nan at step 11")
    assert "from step 20 on again at 0.25" in messages[1]


@pytest.mark.gpu
def test_a_gpu_gives_the_images_of_the_cpu():
    teacher = make_tiny("vit")
    on_cpu = train(teacher, 2).draw(4)
    on_gpu = train(teacher.cuda(), 2, student="w4a4").draw(4)
    assert (on_cpu - on_gpu).abs().mean() < 0.01


def test_acq_tells_the_generator_the_class_and_where_to_look():
    """Pairs share class and center, never the code: what the ratio form of the pair loss is about."""
    facts = TeacherFacts.of(make_tiny("vit"))
    method = resolve_method("acq", engine="generator")
    samples = Sampler(facts, method, resolve_losses(method.losses), 0).samples(range(4))
    assert samples.inputs.shape == (4, 102)
    assert samples.classes[0] == samples.classes[1] and samples.inputs[0, 100:].equal(samples.inputs[1, 100:])
    assert not samples.inputs[0, 100:].equal(samples.inputs[2, 100:])
    assert not samples.codes[0].equal(samples.codes[1])
    images = synthesize(make_tiny("vit"), method="acq", num_images=3, steps=2)
    assert images.isfinite().all()  # the third has no partner
    with pytest.raises(ValueError, match="makes pairs, so group_size must be even, got 3"):
        resolve_method("acq", group_size=3)


@pytest.mark.parametrize(("method", "changes"), [*((name, {}) for name in METHODS), ("agm", {"student": "w4a4"})], ids=str)
def test_a_killed_training_ends_as_one_that_was_not(method, changes, tmp_path):
    teacher = make_tiny("vit")
    steps = {"steps": 0 if METHODS[method].steps == 0 else 6}

    def work(run=None):
        return synthesize(teacher, method=method, engine="generator", num_images=3, group_size=4, run=run, **steps, **changes)

    wanted = work()
    ended, kills = run_to_the_end(work, tmp_path)
    assert kills >= steps["steps"]
    assert torch.equal(ended, wanted)
