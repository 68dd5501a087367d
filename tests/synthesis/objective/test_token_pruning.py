"""Token pruning: which patches are kept, and that pruned ones have no effect."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny

from vitdfq.synthesis import METHODS, TeacherFacts, synthesize
from vitdfq.synthesis.losses.attention_entropy import first_in_order
from vitdfq.synthesis.objective.attention_rows import restrict_to_kept
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.token_pruning import (
    Pruning,
    after_jitter,
    most_attended,
    only_kept_tokens,
    patch_size,
    whole_patches,
)


@pytest.fixture(scope="module")
def facts():
    return TeacherFacts.of(make_tiny("vit"))  # 4 x 4 patches of 8 pixels


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


@given(offset=st.integers(-40, 40), flip=st.booleans(), patch=st.integers(0, 15))
def test_after_jitter_follows_a_patch(facts, offset, flip, patch):
    jitter = whole_patches(Jitter(offset, flip), facts)
    image = torch.zeros(1, 1, 32, 32)
    row, column = divmod(patch, 4)
    image[..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 1
    jittered = torch.nn.functional.avg_pool2d(jitter(image), 8).flatten()
    kept_tokens = torch.tensor([[patch]])
    assert jittered.tolist() == torch.nn.functional.one_hot(after_jitter(kept_tokens, jitter, facts)[0, 0], 16).tolist()


def test_shifts_are_rounded_to_whole_patches(facts):
    assert patch_size(facts) == (8, 8)
    assert [whole_patches(Jitter(offset, True), facts).offset for offset in (-13, -3, 0, 5, 9)] == [-16, 0, 0, 8, 8]


@pytest.mark.parametrize("kind", ["vit", "deit"])
def test_keeping_all_patches_changes_nothing(kind):
    teacher, images = make_tiny(kind), randn(2, 3, 32, 32)
    with only_kept_tokens(teacher, torch.arange(16).expand(2, 16)):
        logits = teacher(images)
    torch.testing.assert_close(logits, teacher(images))
    assert not teacher.patch_drop._forward_hooks


def test_pruned_patches_have_no_effect():
    teacher, images = make_tiny("vit"), randn(2, 3, 32, 32)
    changed = images.clone()
    changed[:, :, :8, :8] += 1.0  # patch 0
    with only_kept_tokens(teacher, torch.tensor([[1, 2, 7], [3, 4, 5]])):
        assert teacher(images).equal(teacher(changed))
    with only_kept_tokens(teacher, torch.tensor([[0, 2, 7], [3, 4, 5]])):
        before, after = teacher(images), teacher(changed)
    assert not torch.allclose(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])


def test_the_most_attended_patches_are_kept(facts):
    site = facts.sites[-1]
    attention = torch.tensor([0.5, 0.15, 0.0, 0.3, 0.05]).expand(1, 1, 2, 5)  # the class token, then patches 4, 5, 9, 11
    kept_tokens = torch.tensor([[4, 5, 9, 11]])
    assert most_attended(attention, site, kept_tokens, 2).tolist() == [[4, 9]]
    assert most_attended(attention, site, None, 2).tolist() == [[0, 2]]


def test_three_tenths_are_pruned_each_time():
    pruning = Pruning((0.1, 0.5))
    assert [step for step in range(20) if pruning.is_active(step, 20)] == [2, 10]
    assert (pruning.remaining(196), pruning.remaining(138), pruning.remaining(1)) == (138, 97, 1)


def test_a_restricted_prior_keeps_its_mass(facts):
    site = facts.sites[-1]
    prior = torch.tensor([0.2, *[0.05] * 16]).expand(1, 1, 2, 17)
    restricted = restrict_to_kept(prior, torch.tensor([[0, 3, 5]]), site)
    torch.testing.assert_close(restricted[0, 0, 0], torch.tensor([0.2, 0.8 / 3, 0.8 / 3, 0.8 / 3]))


@pytest.mark.parametrize("method", ["smi", "sardfq", "psaq"])
def test_passes_get_fewer_patches_during_the_run(method, monkeypatch):
    counts = []
    run = Networks.run

    def counting(self, images, network=None):
        counts.append(16 if self.kept_tokens is None else self.kept_tokens.shape[1])
        return run(self, images, network)

    monkeypatch.setattr(Networks, "run", counting)
    synthesize(make_tiny("deit"), method=method, num_images=2, steps=8, max_regions=1, prune_at=[0.25, 0.5])
    # Two steps with 16 patches, two with 12, four with 9; each selection takes a pass with the patches kept before it.
    assert counts == [16, 16, 16, 12, 12, 12, 9, 9, 9, 9]


@pytest.mark.parametrize("method", [name for name, preset in METHODS.items() if preset.steps and preset.engine == "images"])
def test_every_preset_runs_with_pruning(method):
    images = synthesize(make_tiny("deit"), method=method, num_images=2, steps=6, max_regions=1, prune_at=[0.2, 0.5])
    assert images.isfinite().all()


def test_first_in_order_counts_kept_patches_only():
    order = torch.tensor([[4, 2, 0, 5, 1, 3]])
    assert first_in_order(order, None, 3).tolist() == [[4, 2, 0]]
    assert first_in_order(order, torch.tensor([[1, 2, 3, 5]]), 3).tolist() == [[1, 3, 0]]  # positions of patches 2, 5 and 1
    assert first_in_order(order, torch.tensor([[1, 3]]), 3).tolist() == [[0, 1]]


def test_pixels_of_pruned_patches_stay():
    """Without a loss on pixels, those of pruned patches have no gradient."""
    teacher = make_tiny("vit")
    options = {"num_images": 2, "steps": 10, "losses": {"total_variation": {"weight": 0}}}
    images = synthesize(teacher, method="smi", prune_at=[0.01], **options)
    everything = synthesize(teacher, method="smi", prune_at=[0.99], **options)
    start = synthesize(teacher, method="noise", num_images=2)
    still = ((images - start).abs().amax(1) < 1e-7).float().mean((1, 2))
    assert (still > 0.2).all()  # 4 of 16 patches are pruned at once
    assert ((everything - start).abs().amax(1) < 1e-7).float().mean() < 0.05


def test_prune_at_is_refused_for_windowed_attention_and_a_preset_skips_it():
    with pytest.raises(ValueError, match="class token"):
        synthesize(make_tiny("swin"), method="smi", num_images=1, steps=2, prune_at=[0.1])
    images = synthesize(make_tiny("swin"), method="smi", num_images=1, steps=2)
    assert images.equal(synthesize(make_tiny("swin"), method="smi", num_images=1, steps=2, prune_at=[]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        synthesize(make_tiny("vit"), method="smi", num_images=1, steps=2, prune_at=[1.5])
