"""Painted images among learned ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis import synthesize
from vitdfq.synthesis.context import TeacherFacts
from vitdfq.synthesis.mixture import among_painted
from vitdfq.synthesis.starts import dead_leaves

FACTS = TeacherFacts.of(make_tiny("vit"))


def white(count: int) -> torch.Tensor:
    """Image i is i everywhere."""
    return torch.arange(float(count)).view(-1, 1, 1, 1).expand(count, 3, *FACTS.image_size) + 100


@given(st.integers(1, 12), st.floats(0, 1, exclude_max=True))
def test_share_order_and_independence_of_the_number(count, share):
    images = among_painted(white, count, share, 0, FACTS)
    learned = [index for index in range(count) if images[index].min() >= 100]
    assert learned[0] == 0
    assert abs(count - len(learned) - share * count) <= 1
    assert [images[index, 0, 0, 0].item() - 100 for index in learned] == list(range(len(learned)))
    fewer = among_painted(white, max(1, count - 1), share, 0, FACTS)
    assert torch.equal(fewer, images[: len(fewer)])


@pytest.mark.parametrize("engine", ["images", "generator"])
def test_both_engines_leave_the_painted_ones_alone(engine):
    teacher = make_tiny("vit")
    images = synthesize(teacher, method="gdfq", engine=engine, num_images=5, steps=2, painted=0.5, seed=3)
    for index in range(5):
        assert torch.equal(images[index], dead_leaves(index, 3, FACTS)) == (index % 2 == 1)


@pytest.mark.parametrize("painted", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(painted):
    with pytest.raises(ValueError, match="painted must be a share"):
        synthesize(make_tiny("vit"), method="psaq", num_images=1, steps=1, painted=painted)
