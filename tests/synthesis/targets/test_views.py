"""Views: the parts of an image that are optimized, with their targets and draws."""

import pytest
import torch
from tiny import make_tiny

from vitdfq.synthesis import METHODS, TeacherFacts
from vitdfq.synthesis.objective.weighted_losses import resolve_losses
from vitdfq.synthesis.targets.views import Views, draw_views


@pytest.fixture
def views():
    """The views of 12 images of a tiny ViT under SARDFQ."""
    method = METHODS["sardfq"]
    facts = TeacherFacts.of(make_tiny("vit"))
    return [draw_views(index, 0, method, resolve_losses(method.losses), facts) for index in range(12)]


def test_images_have_one_to_four_regions(views):
    assert {len(image_views) for image_views in views} == {1, 3, 4, 5}  # the whole image alone, or with 2 to 4 regions


def test_the_whole_image_has_the_classes_of_all_its_regions(views):
    for image_views in views:
        count = max(1, len(image_views) - 1)
        classes = set(image_views[0].target.topk(count).indices.tolist())
        if image_views[1:]:
            assert {view.target.argmax().item() for view in image_views[1:]} == classes
            assert len(classes) == count


def test_every_view_has_its_own_draws(views):
    flat = [view for image_views in views for view in image_views]
    for key in ("blocks.1.attn", "blocks.2.attn"):
        assert len({tuple(view.drawn["attention_prior"][key].flatten().tolist()) for view in flat}) == len(flat)
    assert len({view.drawn["total_variation"]["target"].item() for view in flat}) == len(flat)


def test_chunks_are_the_stack_in_order(views):
    stacked = Views.stack(views, torch.device("cpu"))
    chunks = list(stacked.chunks(5))
    assert max(len(chunk.owners) for chunk in chunks) == 5
    assert [owner for chunk in chunks for owner in chunk.owners] == stacked.owners
    assert stacked.owners == [owner for owner, image_views in enumerate(views) for _ in image_views]
    draws = torch.cat([chunk.drawn["attention_prior"]["blocks.1.attn"] for chunk in chunks])
    assert torch.equal(draws, stacked.drawn["attention_prior"]["blocks.1.attn"])
    assert torch.equal(torch.cat([chunk.targets for chunk in chunks]), stacked.targets)
