"""Classes and the targets that ask for them."""

import pytest
import torch

from vitdfq.synthesis.labels import LABELS, default_label_range, hard_target, image_classes, soft_target
from vitdfq.synthesis.seeds import generator


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
def test_repeated_classes_are_one_class(kind):
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
