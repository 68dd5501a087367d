import torch
from tiny import make_tiny

from vitdfq.synthesis import synthesize
from vitdfq.synthesis.image_selection.farthest_point import BLOCK, farthest_point_sampling
from vitdfq.synthesis.image_selection.quality import quality


def test_farthest_point_sampling_by_hand():
    """Directions at 0, 10, 90, 100 and 180 degrees: an end, the other end, the middle; then what is nearest to none."""
    angles = torch.deg2rad(torch.tensor([0.0, 10.0, 90.0, 100.0, 180.0]))
    features = torch.stack([angles.cos(), angles.sin()], dim=1) * torch.tensor([[1.0], [5.0], [1.0], [2.0], [3.0]])
    assert farthest_point_sampling(features, 1) == [4] and farthest_point_sampling(features, 3) == [4, 0, 2]
    assert sorted(farthest_point_sampling(features, 5)) == [0, 1, 2, 3, 4]


def test_selected_images_are_more_diverse_and_do_not_depend_on_num_images():
    teacher = make_tiny("vit")
    chosen = synthesize(teacher, method="far_leaves", num_images=8)
    assert torch.equal(synthesize(teacher, method="far_leaves", num_images=3), chosen[:3])
    plain = synthesize(teacher, method="dead_leaves", num_images=8)
    assert quality(teacher, chosen)["diversity"] > 1.3 * quality(teacher, plain)["diversity"]
    assert len({image.sum().item() for image in synthesize(teacher, method="far_leaves", num_images=BLOCK + 2)}) == BLOCK + 2
