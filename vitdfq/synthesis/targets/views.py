"""Views: the whole image and crops of its regions, each with its own target and draws."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from vitdfq.synthesis.objective.context import Draws, TeacherFacts
from vitdfq.synthesis.objective.regions import draw_regions
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.labels import BANKS, LABELS, image_classes


@dataclass(frozen=True)
class View:
    """The part of a view that stays fixed during the run."""

    place: int  # 0: the whole image, k: its k-th region
    classes: list[int]  # of the target, its main class first; none where the teacher gives features
    region: Tensor  # (4,) top, left, height, width
    target: Tensor  # (C,); C is 0 where the teacher gives features
    drawn: dict[str, Draws]  # loss name -> result of its `draw`


@dataclass(frozen=True)
class Views:
    """V views of the images of one batch, stacked."""

    owners: list[int]  # (V,) position in the batch of each view's image
    places: list[int]  # (V,)
    regions: Tensor  # (V, 4), on the CPU
    targets: Tensor  # (V, C)
    drawn: dict[str, Draws]  # tensors (V, ...)
    kept_tokens: Tensor | None = None  # (V, k) indices of the image's patches that are not pruned; None: all
    boxes: Tensor | None = None  # (V, 4) the crop of each image at this step; None: whole images

    @staticmethod
    def stack(views_of: list[list[View]], device: torch.device) -> "Views":
        """Stack the views of all images of a batch, given image by image."""
        owners = [owner for owner, views in enumerate(views_of) for _ in views]
        views = [view for views in views_of for view in views]
        drawn = {
            name: {key: torch.stack([view.drawn[name][key] for view in views]).to(device) for key in draws}
            for name, draws in views[0].drawn.items()
        }
        targets = torch.stack([view.target for view in views]).to(device)
        return Views(owners, [view.place for view in views], torch.stack([view.region for view in views]), targets, drawn)

    def __getitem__(self, part: slice) -> "Views":
        drawn = {name: {key: draw[part] for key, draw in draws.items()} for name, draws in self.drawn.items()}
        kept_tokens, boxes = (None if value is None else value[part] for value in (self.kept_tokens, self.boxes))
        return Views(self.owners[part], self.places[part], self.regions[part], self.targets[part], drawn, kept_tokens, boxes)

    def chunks(self, size: int) -> Iterator["Views"]:
        """Yield parts of at most `size` views, so that memory is bounded whatever the number of crops."""
        for start in range(0, len(self.owners), size):
            yield self[start : start + size]


def draw_views(index: int, seed: int, method: Method, terms: list[WeightedLoss], facts: TeacherFacts) -> list[View]:
    """Draw the views of image `index`: the whole image, then its regions; no region if the whole image is the only one.

    All draws come from the image's own streams, so that they depend on neither batch nor number of images; only labels of a
    kind in `BANKS` depend on those of the preceding images.
    """
    if method.pairs:
        index = index // 2
    labels = Labels.of(seed, method, facts)
    rng, classes, regions = labels.classes_and_regions(index)

    def view(place: int, region: Tensor, view_classes: list[int]) -> View:
        target = labels.target(rng, view_classes, index)
        drawn = {term.name: term.draw(generator(seed, term.loss.stream or term.name, index, place), facts) for term in terms}
        return View(place, view_classes, region, target, drawn)

    whole = view(0, torch.tensor([0, 0, *facts.image_size]), classes)  # with the classes of all regions
    return [whole, *(view(place + 1, region, classes[place : place + 1]) for place, region in enumerate(regions))]


def target_class(index: int, seed: int, method: Method, facts: TeacherFacts) -> int | None:
    """Return the main class of image `index`, as `draw_views` draws it; None: the image has none."""
    if not method.steps or not facts.num_classes:
        return None
    return Labels.of(seed, method, facts).classes_and_regions(index // 2 if method.pairs else index)[1][0]


@dataclass(frozen=True)
class Labels:
    """The settings that determine the targets of all images."""

    seed: int
    kind: str
    label_range: tuple[float, ...]
    max_regions: int
    num_classes: int  # 0: the teacher gives features, and there are no labels
    image_size: tuple[int, int]

    @staticmethod
    def of(seed: int, method: Method, facts: TeacherFacts) -> "Labels":
        """The settings of a method."""
        label_range = tuple(method.label_range or ())
        return Labels(seed, method.labels, label_range, method.max_regions, facts.num_classes, facts.image_size)

    def classes_and_regions(self, index: int) -> tuple[torch.Generator, list[int], Tensor]:
        """Return the random stream of image `index`, its classes, and its regions (count, 4)."""
        rng = generator(self.seed, "views", index)
        count = int(torch.randint(1, self.max_regions + 1, (), generator=rng))
        classes = image_classes(rng, self.seed, index, count, self.num_classes) if self.num_classes else []
        return rng, classes, draw_regions(rng, count, self.image_size)

    def target(self, rng: torch.Generator, classes: list[int], index: int) -> Tensor:
        """Return the target (C,) of a view of image `index` with these classes."""
        if not self.num_classes:
            return torch.empty(0)
        earlier = {"earlier": bank(self, index)} if self.kind in BANKS else {}
        return LABELS[self.kind](rng, classes, self.num_classes, self.label_range or None, **earlier)


def bank(labels: Labels, index: int) -> list[Tensor]:
    """Return the targets of the last whole images before image `index`, at most `BANKS[kind]`, in order."""
    targets = history(labels)
    while len(targets) < index:
        rng, classes, _ = labels.classes_and_regions(len(targets))
        targets.append(labels.target(rng, classes, len(targets)))
    return targets[max(0, index - BANKS[labels.kind]) : index]


@lru_cache(maxsize=1)
def history(labels: Labels) -> list[Tensor]:
    """Return the cached targets from image 0 on, to be extended: each depends on the preceding ones, and all are costly."""
    return []
