"""What every kind of procedural images keeps to."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.models import image_range
from vitdfq.synthesis import synthesize
from vitdfq.synthesis.objective.context import TeacherFacts
from vitdfq.synthesis.procedural import PROCEDURAL


@pytest.mark.parametrize("start", sorted(PROCEDURAL))
def test_images_depend_on_index_and_seed_within_the_teachers_range(start):
    teacher = make_tiny("vit")
    facts = TeacherFacts.of(teacher)
    low, high = image_range(teacher)
    first, again, second, other_seed = (PROCEDURAL[start](index, seed, facts) for index, seed in ((0, 0), (0, 0), (1, 0), (0, 1)))
    assert first.shape == (3, 32, 32) and first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, second) and not torch.equal(first, other_seed)
    assert ((first >= low[0] - 1e-5) & (first <= high[0] + 1e-5)).all()


def test_a_method_can_start_from_dead_leaves():
    teacher = make_tiny("vit")
    kwargs = {"num_images": 2, "steps": 2, "lr": 1e-6}
    leaves = synthesize(teacher, method="dead_leaves", num_images=2)
    torch.testing.assert_close(synthesize(teacher, method="psaq", start="dead_leaves", **kwargs), leaves, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="unknown start 'dead_leafs', did you mean 'dead_leaves'"):
        synthesize(teacher, start="dead_leafs")
