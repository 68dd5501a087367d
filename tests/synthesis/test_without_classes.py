"""Synthesis with teachers that give features: no labels, no losses that compare classes."""

import logging

import pytest
import torch
from tiny import FEATURE_KINDS, make_tiny

from vitdfq.models import image_range, image_size
from vitdfq.synthesis import LOSSES, METHODS, TeacherFacts, check_classes, quality, resolve_method, synthesize, train_generator
from vitdfq.synthesis.generator import network
from vitdfq.synthesis.objective.students import make_learner, refresh
from vitdfq.synthesis.options import SynthesisOptions
from vitdfq.synthesis.targets.views import Views, draw_views
from vitdfq.synthesis.teacher_filter import for_teacher
from vitdfq.synthesis.without_classes import losses_for, why_classes
from vitdfq.training.output_distance import relative_error

NEED_CLASSES = ("fdd", "smi", "ris", "agm", "gdfq")
OPTIMIZED = [name for name, method in METHODS.items() if method.steps and name not in NEED_CLASSES]


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """Tiny teachers get a small generator."""
    monkeypatch.setattr(network, "WIDTHS", (32, 16, 16, 16, 16))


@pytest.mark.parametrize("kind", FEATURE_KINDS)
@pytest.mark.parametrize("engine", ["images", pytest.param("generator", marks=pytest.mark.slow)])
@pytest.mark.parametrize("method", OPTIMIZED)
def test_every_method_that_needs_no_classes(method, engine, kind):
    teacher = make_tiny(kind)
    images = synthesize(teacher, method=method, engine=engine, num_images=3, steps=2, group_size=4)
    low, high = image_range(teacher)
    assert images.shape == (3, 3, *image_size(teacher)) and images.std() > 0.1
    assert ((images >= low) & (images <= high)).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokens", "swin_backbone"])
def test_leaves_are_selected_by_features(kind):
    assert synthesize(make_tiny(kind), method="far_leaves", num_images=2).shape[0] == 2


def test_methods_that_need_classes_are_those_whose_own_losses_compare_them_or_that_have_no_others():
    reasons = {name: why_classes(method) for name, method in METHODS.items()}
    assert {name for name, reason in reasons.items() if reason} == set(NEED_CLASSES)
    assert reasons["agm"] == "margin_discrepancy compares them"
    assert reasons["smi"] == "without class_confidence no loss reads the teacher"


@pytest.mark.parametrize("engine", ["images", "generator"])
@pytest.mark.parametrize("method", NEED_CLASSES)
def test_a_method_that_needs_classes_is_refused_with_the_choices_that_work(method, engine):
    with pytest.raises(ValueError, match=rf"method '{method}' needs classes \(.*and the teacher gives features; choices: .*psaq"):
        synthesize(make_tiny("backbone"), method=method, engine=engine, num_images=1, steps=1)
    with pytest.raises(ValueError, match="needs classes"):  # also where only the generator is asked for
        train_generator(make_tiny("backbone"), resolve_method(method, engine="generator", steps=1), batch_size=2)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"method": "psaq", "losses": {"label_correlation": {}}}, "method 'psaq' needs classes .label_correlation compares them"),
        ({"method": "psaq", "losses": {"patch_similarity": {"weight": 0}}}, "without class_confidence no loss reads the teacher"),
        ({"method": "psaq", "mix": {"smi": 0.5}}, "method 'smi' needs classes"),
        ({"method": "psaq", "labels": "hard"}, "labels 'hard' is about targets of classes, and the teacher gives features"),
        ({"method": "psaq", "label_range": [1.0, 2.0]}, "label_range .1.0, 2.0. is about targets"),
        ({"method": "psaq", "losses": {"mine": lambda ctx: ctx.logits.sum(1)}}, "a loss reads logits, and the teacher gives"),
    ],
)
def test_what_cannot_be_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        synthesize(make_tiny("backbone"), num_images=1, steps=1, **keywords)


def test_a_loss_of_the_own_method_makes_it_possible():
    losses = {"margin_discrepancy": {"weight": 0}, "patch_similarity": {"weight": 1.0}}
    facts = TeacherFacts.of(make_tiny("backbone"))
    names = [weighted.name for weighted in losses_for(resolve_method("agm", losses), facts)]
    assert names == ["total_variation", "patch_similarity"]


def test_what_is_left_out_is_said_once(caplog):
    with caplog.at_level(logging.INFO, logger="vitdfq"):
        synthesize(make_tiny("backbone"), method="vitdfq", num_images=6, steps=1)
    assert [message for message in caplog.messages if "left out" in message] == [
        "synthesize: the teacher gives features; left out: the images of smi; class_confidence of psaq"
    ]
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="vitdfq"):
        synthesize(make_tiny("vit"), method="vitdfq", num_images=6, steps=1)
        synthesize(make_tiny("backbone"), method="noise", num_images=1)
    assert not any("left out" in message for message in caplog.messages)


def test_the_preset_of_this_library_has_losses_and_shares_of_its_own():
    teacher = make_tiny("backbone")
    facts, method = TeacherFacts.of(teacher), METHODS["vitdfq"]
    check_classes(SynthesisOptions(), facts)
    names = {weighted.name for weighted in losses_for(method, facts)}
    assert names == set(method.feature_losses) and not any(LOSSES[name].needs_classes for name in names)
    mix = for_teacher(method, teacher, facts, 0).mix
    assert "smi" not in mix and set(mix) >= {"psaq"} and sum(mix.values()) < 1
    own = 1 - sum(mix.values())
    assert mix["psaq"] / own == pytest.approx(method.mix["psaq"] / (1 - sum(method.mix.values())))


@pytest.mark.parametrize("max_regions", [1, 4])
def test_no_label_is_drawn(max_regions):
    facts = TeacherFacts.of(make_tiny("embedding"))  # its head is as wide as 512 classes
    method = resolve_method("sardfq", max_regions=max_regions)
    views_of = [draw_views(index, 0, method, losses_for(method, facts), facts) for index in range(6)]
    assert facts.num_classes == 0 and all(view.classes == [] for views in views_of for view in views)
    stacked = Views.stack(views_of, torch.device("cpu"))
    assert stacked.targets.shape == (len(stacked.owners), 0)


@pytest.mark.parametrize("kind", ["backbone", pytest.param("embedding", marks=pytest.mark.slow)])
def test_a_student_learns_in_turn(kind):
    teacher = make_tiny(kind)
    method = resolve_method("psaq_v2", {"discrepancy": {"weight": 0}}, engine="generator", student="w4a4", steps=20)
    trained = train_generator(teacher, method, batch_size=8)
    images = trained.draw(32)
    untaught = make_learner(teacher, "w4a4")
    refresh(untaught, images)
    taught, before = (relative_error(student(images), teacher(images)).item() for student in (trained.student, untaught))
    assert taught < 0.9 * before


def test_quality_without_classes():
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    teacher = make_tiny("tokens")
    measured = quality(teacher, images, batch_size=2)
    assert measured["class_confidence"] is None and measured["num_classes_seen"] is None
    features = teacher(images).mean(1)
    distances = 1 - torch.nn.functional.cosine_similarity(features[:, None], features[None], dim=-1)
    assert measured["diversity"] == pytest.approx(distances.sum().item() / 12, rel=1e-2)
    assert measured["layer_norm_distance"] > 0
