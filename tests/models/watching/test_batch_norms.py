"""BatchNorms are found by watching: those that fold exactly into one layer, and no others."""

from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d, Conv2dSame, StdConv2d
from tiny import randomize_batch_norms
from torch import nn
from torch.nn import functional as F

from vitdfq.models.family import BatchNormSite
from vitdfq.models.watching.batch_norms import watched_batch_norms
from vitdfq.preparation import fold
from vitdfq.preparation.fold import fold_batch_norm

AFTER, BEFORE, NOT = True, False, None


class Chain(nn.Module):
    """Layers in a row, by name, and the images that they read."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.pretrained_cfg = {"input_size": (3, 8, 8)}
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in self.children():
            x = part(x)
        return x


class Tokens(nn.Module):
    """(B, C, H, W) -> (B, N, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(2).transpose(1, 2)


class Rows(nn.Module):
    """(B, N, C) -> (B * N, C)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(0, 1)


class Copied(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.clone()


class Turned(nn.Module):
    """Rows and channels change places: both are 8."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.transpose(1, 2)


class TwoReaders(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y) + y


class Returned(Chain):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.conv(x)
        return self.norm(y), y


class Twice(Chain):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) + self.norm(self.other(x))


class Bypass(Chain):
    """The layer's weight is read beside the layer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)) + F.conv2d(x, self.conv.weight)


class Shared(Chain):
    """A module under two names: which of them is called is not known."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))


def conv(inputs: int = 3, **options: object) -> nn.Conv2d:
    return nn.Conv2d(inputs, 8, 1, bias=False, **options)  # pyright: ignore[reportArgumentType]


def shared() -> Shared:
    layer = conv()
    return Shared(conv=layer, norm=nn.BatchNorm2d(8), other=layer)


CHAINS = {
    "after a convolution": (lambda: Chain(conv=conv(), norm=nn.BatchNorm2d(8)), AFTER),
    "after a depthwise one": (lambda: Chain(stem=conv(), conv=nn.Conv2d(8, 8, 3, groups=8), norm=nn.BatchNorm2d(8)), AFTER),
    "with an activation inside": (lambda: Chain(conv=conv(), norm=BatchNormAct2d(8)), AFTER),
    "without affine": (lambda: Chain(conv=conv(), norm=nn.BatchNorm2d(8, affine=False)), AFTER),
    "after one that pads by itself": (lambda: Chain(conv=Conv2dSame(3, 8, 3), norm=nn.BatchNorm2d(8)), AFTER),
    "after a linear layer": (
        lambda: Chain(stem=conv(), tokens=Tokens(), conv=nn.Linear(8, 5), rows=Rows(), norm=nn.BatchNorm1d(5)),
        AFTER,
    ),
    "before a convolution": (lambda: Chain(norm=nn.BatchNorm2d(3), conv=conv()), BEFORE),
    "before groups": (lambda: Chain(stem=conv(), copy=Copied(), norm=nn.BatchNorm2d(8), conv=conv(8, groups=2)), BEFORE),
    "before a linear layer": (lambda: Chain(norm=nn.BatchNorm2d(3), tokens=Tokens(), conv=nn.Linear(3, 8)), BEFORE),
    "an activation between": (lambda: Chain(norm=BatchNormAct2d(3), conv=conv()), NOT),
    "zeros between": (lambda: Chain(norm=nn.BatchNorm2d(3), conv=conv(padding=1)), NOT),
    "zeros by itself": (lambda: Chain(norm=nn.BatchNorm2d(3), conv=Conv2dSame(3, 8, 3)), NOT),
    "a standardized weight": (lambda: Chain(conv=StdConv2d(3, 8, 1), norm=nn.BatchNorm2d(8)), NOT),
    "a copy between": (lambda: Chain(conv=conv(), copy=Copied(), norm=nn.BatchNorm2d(8)), NOT),
    "other channels": (lambda: Chain(conv=conv(), turned=Turned(), norm=nn.BatchNorm2d(8)), NOT),
    "statistics of the batch": (lambda: Chain(conv=conv(), norm=nn.BatchNorm2d(8, track_running_stats=False)), NOT),
    "two readers": (lambda: TwoReaders(conv=conv(), norm=nn.BatchNorm2d(8)), NOT),
    "the caller reads": (lambda: Returned(conv=conv(), norm=nn.BatchNorm2d(8)), NOT),
    "called twice": (lambda: Twice(conv=conv(), other=conv(), norm=nn.BatchNorm2d(8)), NOT),
    "a weight read elsewhere": (lambda: Bypass(conv=conv(), norm=nn.BatchNorm2d(8)), NOT),
    "two names": (shared, NOT),
}
HYBRIDS = {  # timm's name -> size of the images, arguments, BatchNorms that fold, all of them
    "mobilevit_xxs": (64, {}, 32, 32),
    "fastvit_t8": (64, {}, 46, 70),  # a MobileOne block adds a norm of its input
    "maxvit_rmlp_pico_rw_256": (64, {"img_size": 64}, 34, 34),
    "xcit_nano_12_p16_224": (64, {}, 4, 16),  # zeros between norm and convolution
    "nextvit_small": (64, {}, 53, 61),
    "levit_conv_128s": (224, {}, 52, 52),
    "mobilenetv4_hybrid_medium": (64, {}, 88, 96),
    "visformer_tiny": (224, {}, 27, 28),
    "coatnet_bn_0_rw_224": (64, {"img_size": 64}, 22, 35),
    "botnet26t_256": (256, {}, 28, 31),
}


def exactly_folded(model: nn.Module, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> list[BatchNormSite]:
    """Fold what is found; the outputs stay, in float64. Returns what was found."""
    randomize_batch_norms(model, images, torch.Generator().manual_seed(1))
    model.eval().double().requires_grad_(False)
    before, sites = model(images.double()), watched_batch_norms(model)
    monkeypatch.setattr(fold, "family_of", lambda _: SimpleNamespace(batch_norms=watched_batch_norms))
    assert fold_batch_norm(model).changed == bool(sites)
    after = model(images.double())
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * float(before[0].std()))
    return sites


@pytest.mark.parametrize("kind", CHAINS)
def test_a_batch_norm_folds_exactly_or_is_left(kind, monkeypatch):
    torch.manual_seed(0)
    make, follows = CHAINS[kind]
    sites = exactly_folded(make(), torch.randn(4, 3, 8, 8), monkeypatch)
    assert sites == ([] if follows is None else [BatchNormSite("norm", "conv", follows)])


def test_an_activation_inside_stays_under_its_name(monkeypatch):
    model = Chain(conv=conv(), norm=BatchNormAct2d(8))
    exactly_folded(model, torch.randn(4, 3, 8, 8), monkeypatch)
    assert isinstance(model.get_submodule("norm.act"), nn.ReLU) and not model.get_submodule("norm.act").inplace


def test_the_outcome_says_how_many_stay(monkeypatch):
    monkeypatch.setattr(fold, "family_of", lambda _: SimpleNamespace(batch_norms=watched_batch_norms))
    model = Chain(conv=conv(), norm=nn.BatchNorm2d(8), copy=Copied(), other=nn.BatchNorm2d(8)).eval()
    assert fold_batch_norm(model).what == "1 of 2 BatchNorms (1 stand beside no layer alone)"
    assert fold_batch_norm(model).why_not == "none of 1 stands beside one layer alone"


@pytest.mark.slow
@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids_stay_the_same_function(name, monkeypatch):
    torch.manual_seed(0)
    size, arguments, found, total = HYBRIDS[name]
    model = timm.create_model(name, num_classes=10, **arguments)
    model.pretrained_cfg["input_size"] = (3, size, size)
    assert sum(isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) for part in model.modules()) == total
    assert len(exactly_folded(model, torch.randn(2, 3, size, size), monkeypatch)) == found
