"""Classes and their target distributions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis import METHODS, TeacherFacts
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.labels import (
    LABELS,
    default_label_range,
    hard_target,
    image_classes,
    low_correlation_target,
    soft_target,
)
from vitdfq.synthesis.targets.views import Labels, bank, draw_views, history


@pytest.mark.parametrize("num_classes", [2, 10, 100, 1000])
@pytest.mark.parametrize("count", [1, 2])
def test_soft_target_peaks_on_a_relevant_class(num_classes, count):
    for seed in range(200):
        classes = torch.randperm(num_classes, generator=generator(seed, "classes"))[:count].tolist()
        target = soft_target(generator(seed), classes, num_classes)
        assert target.sum().item() == pytest.approx(1)
        assert target.argmax().item() in classes


def peaks(num_classes):
    targets = torch.stack([soft_target(generator(seed), [1], num_classes) for seed in range(400)])
    return targets[:, 1]


def test_peak_probability_at_1000_classes_is_the_published_range():
    """A single class gets .08 at logit 5 and .93 at logit 10."""
    assert default_label_range(1000) == (5, 10)
    assert peaks(1000).min().item() == pytest.approx(0.08, abs=0.01)
    assert peaks(1000).max().item() == pytest.approx(0.93, abs=0.01)


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_peak_probability_is_comparable_for_fewer_classes(num_classes):
    assert 0.07 < peaks(num_classes).min() < peaks(num_classes).max() < 0.96
    assert peaks(num_classes).max().item() == pytest.approx(peaks(1000).max().item(), abs=0.03)


@pytest.mark.parametrize("num_classes", [2, 3, 10, 21841])
def test_default_range_keeps_relevant_classes_above_the_rest(num_classes):
    lower, upper = default_label_range(num_classes)
    assert lower >= 2 and upper >= lower + 1


def test_label_range_overrides():
    narrow = soft_target(generator(0), [0], 10, [20.0, 20.0])
    assert narrow[0] > 0.9999


def test_hard_target():
    assert hard_target(generator(0), [2], 4).tolist() == [0, 0, 1, 0]
    assert hard_target(generator(0), [2, 0], 4).tolist() == [0.5, 0, 0.5, 0]


@pytest.mark.parametrize("kind", LABELS)
def test_repeated_classes_count_once(kind):
    target = LABELS[kind](generator(0), [1, 0, 1], 3)
    assert target.sum().item() == pytest.approx(1)
    assert target[2] < target[:2].min()


def test_main_classes_cover_every_class_evenly():
    main = [image_classes(generator(0, i), 0, i, 1, 10)[0] for i in range(20)]
    assert sorted(main[:10]) == sorted(main[10:]) == list(range(10))
    assert main[:10] != main[10:] and main[:10] != list(range(10))
    assert main != [image_classes(generator(1, i), 1, i, 1, 10)[0] for i in range(20)]


@pytest.mark.parametrize("index", range(5))
def test_other_classes_are_distinct_while_there_are_enough(index):
    assert len(set(image_classes(generator(index), 0, index, 4, 10))) == 4
    few = image_classes(generator(index), 0, index, 4, 2)
    assert len(few) == 4 and set(few) == {0, 1}


def mean_correlation(targets):
    return torch.corrcoef(torch.stack(targets)).fill_diagonal_(0).amax(1).mean().item()


class TestLowCorrelationLabels:
    @given(st.integers(2, 40), st.integers(1, 4), st.integers(0, 1000))
    def test_peak_on_the_given_classes(self, num_classes, count, seed):
        classes = list(range(min(count, num_classes)))
        earlier = [low_correlation_target(generator(seed + 1), [0], num_classes)]
        target = low_correlation_target(generator(seed), classes, num_classes, earlier=earlier)
        assert target.sum().item() == pytest.approx(1)
        if num_classes > count:
            assert target[classes].tolist() == pytest.approx([0.9 / len(classes)] * len(classes))
            assert target[len(classes) :].max() < 0.1001
        assert target.argmax().item() in classes

    def test_are_less_correlated_than_unselected_labels(self):
        chosen, plain = [], []
        for index in range(30):
            chosen.append(low_correlation_target(generator(0, index), [index % 5], 10, earlier=chosen))
            plain.append(low_correlation_target(generator(0, index), [index % 5], 10))
        assert mean_correlation(chosen) < mean_correlation(plain)

    def test_an_image_depends_on_seed_and_index_only(self):
        facts, method = TeacherFacts.of(make_tiny("vit")), METHODS["ris"]
        history.cache_clear()
        in_order = [draw_views(index, 0, method, [], facts)[0].target for index in range(70)]
        history.cache_clear()
        assert torch.equal(draw_views(69, 0, method, [], facts)[0].target, in_order[69])
        assert torch.equal(draw_views(3, 0, method, [], facts)[0].target, in_order[3])
        assert not torch.equal(draw_views(3, 1, method, [], facts)[0].target, in_order[3])

    def test_the_bank_has_the_last_64_targets(self):
        facts, method = TeacherFacts.of(make_tiny("vit")), METHODS["ris"]
        targets = [draw_views(index, 0, method, [], facts)[0].target for index in range(70)]
        labels = Labels(0, "low_correlation", (), 1, facts.num_classes, facts.image_size)
        assert len(bank(labels, 70)) == 64 and bank(labels, 0) == []
        assert all(torch.equal(one, other) for one, other in zip(bank(labels, 70), targets[6:], strict=True))
