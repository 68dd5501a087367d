"""The image engine: the pixels are the variable, the teacher stays as it is."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitdfq.models import record
from vitdfq.progress import bar
from vitdfq.synthesis.augment import Jitter
from vitdfq.synthesis.context import SynthContext, TeacherFacts
from vitdfq.synthesis.methods import Method
from vitdfq.synthesis.regions import crop_and_resize, sub_crops
from vitdfq.synthesis.schedule import default_lr
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.starts import STARTS
from vitdfq.synthesis.terms import Term, resolve_terms
from vitdfq.synthesis.views import Views, draw_views

BETAS = (0.5, 0.9)  # of Adam on pixels: PSAQ-ViT, arXiv 2203.02250


def invert(teacher: nn.Module, facts: TeacherFacts, method: Method, *, num_images: int, batch_size: int, seed: int) -> Tensor:
    """Optimise images against the frozen teacher, `batch_size` at a time. Returns (num_images, 3, H, W) on the CPU."""
    terms = resolve_terms(method.losses)
    names = [name for term in terms for name in term.loss.recorded_names(facts.sites)]
    images = []
    with record(teacher, names) as recorded, bar("synthesize", total=num_images * method.steps) as progress:
        inversion = Inversion(teacher, facts, method, terms, recorded, batch_size, seed, progress.advance)
        for first in range(0, num_images, batch_size):
            images.append(inversion.run(range(first, min(first + batch_size, num_images))))
    return torch.cat(images)


@dataclass(frozen=True)
class Inversion:
    """What all batches of one call share."""

    teacher: nn.Module
    facts: TeacherFacts
    method: Method
    terms: list[Term]
    recorded: dict[str, Tensor]  # of the last forward pass
    batch_size: int
    seed: int
    advance: Callable[..., None]

    def run(self, batch: range) -> Tensor:
        """Optimise the images with these indices. Returns (len(batch), 3, H, W) on the CPU."""
        method, facts, device = self.method, self.facts, self.facts.low.device
        start = STARTS[method.start]
        # A tensor each: Adam skips those without gradient, so an image without crops takes no part in their step.
        images = [start(index, self.seed, facts).to(device).requires_grad_() for index in batch]
        views = [draw_views(index, self.seed, method, self.terms, facts) for index in batch]
        whole = Views.stack([own[:1] for own in views], device)
        crops = Views.stack([own[1:] for own in views], device) if any(own[1:] for own in views) else None
        rngs = [generator(self.seed, "crops", index) for index in batch]

        lr = method.lr or default_lr(facts.sites)
        optimizer = torch.optim.Adam(images, lr=lr, betas=BETAS)
        for step in range(method.steps):
            optimizer.param_groups[0]["lr"] = lr * method.schedule.lr_factor(step, method.steps)
            roll_limit = method.schedule.roll_limit(step, method.steps, min(facts.image_size))
            jitter = Jitter.draw(self.seed, step, roll_limit)
            losses = self.update(images, optimizer, whole, jitter, step)
            if crops is not None:
                draws = [torch.rand(len(own) - 1, 4, generator=rng) for own, rng in zip(views, rngs, strict=True)]
                boxes = sub_crops(crops.regions, torch.cat(draws), facts.image_size)
                self.update(images, optimizer, replace(crops, boxes=boxes), jitter, step)
            self.advance(len(batch), **losses)
        return torch.stack(images).detach().cpu()

    def update(
        self, images: list[Tensor], optimizer: torch.optim.Optimizer, views: Views, jitter: Jitter, step: int
    ) -> dict[str, float]:
        """Take one optimizer step on the views, clamp; return each loss's mean over views."""
        optimizer.zero_grad(set_to_none=True)
        sums = dict.fromkeys((term.name for term in self.terms), 0.0)
        for chunk in views.chunks(self.batch_size):
            shown = [images[owner] for owner in chunk.owners]
            fed = torch.stack(shown)  # (V, 3, H, W); an image once for each of its views
            fed = jitter(fed if chunk.boxes is None else crop_and_resize(fed, chunk.boxes))
            values = self.losses(fed, chunk, step)
            total = torch.stack([term.weight * values[term.name].sum() for term in self.terms]).sum()
            total.backward(inputs=list(dict.fromkeys(shown)))
            chunk_sums = torch.stack([value.detach().sum() for value in values.values()])
            for name, value in zip(values, chunk_sums.tolist(), strict=True):  # the one wait for the device in a pass
                if not math.isfinite(value):
                    raise ValueError(f"loss {name!r} is {value} at step {step}; try a smaller lr or weight")
                sums[name] += value
        optimizer.step()
        with torch.no_grad():
            for image in images:
                image.clamp_(self.facts.low[0], self.facts.high[0])
        return {name: value / len(views.owners) for name, value in sums.items()}

    def losses(self, fed: Tensor, views: Views, step: int) -> dict[str, Tensor]:
        """Run the teacher on what is fed; return the value of each loss, (V,)."""
        ctx = SynthContext(
            images=fed,
            targets=views.targets,
            logits=self.teacher(fed),
            recorded=self.recorded,
            sites=self.facts.sites,
            drawn=views.drawn,
            step=step,
            steps=self.method.steps,
        )
        return {term.name: term.value(ctx) for term in self.terms}
