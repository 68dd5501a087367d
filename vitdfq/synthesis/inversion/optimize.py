"""The image engine: what makes the pixels is the variable, the teacher stays as it is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitdfq.common.errors import NotFiniteError
from vitdfq.runtime import distributed
from vitdfq.runtime.batch_size import AdaptiveBatchSize
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.progress import bar, say
from vitdfq.synthesis.inversion.parametrization import BETAS, PARAMETRIZATIONS, ImageParametrization
from vitdfq.synthesis.objective.attention_rows import attention_rows, rows_name
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.regions import crop_and_resize, sub_crops
from vitdfq.synthesis.objective.token_pruning import Pruning, after_jitter, check_prunable, most_attended, whole_patches
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss, finite_sums, listened_names, objective, resolve_losses
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.schedule import default_lr
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.views import Views, draw_views
from vitdfq.training.trainable import TRIES

GROUP_SIZE = 16  # images that depend on each other where they do


def invert(
    teacher: nn.Module, facts: TeacherFacts, method: Method, *, num_images: int, batch_size: int, seed: int, shelf: PartialResults
) -> Tensor:
    """Optimise images against the frozen teacher, `batch_size` at a time, batches shared out over the processes.

    Returns:
        (num_images, 3, H, W) on the CPU, in every process.
    """
    terms = resolve_losses(method.losses)
    if coupled(method, terms, facts):  # then who is in a batch is part of the method, not of how it is run
        batch_size = method.group_size or GROUP_SIZE
    names = listened_names(terms, facts)
    if method.prune_at:
        check_prunable(teacher, facts)
        names.append(rows_name(facts.sites[-1]))
    cut = [range(first, min(first + batch_size, num_images)) for first in range(0, num_images, batch_size)]
    batches = {f"images_{batch.start}_{batch.stop}": batch for batch in cut}
    own = sum(len(batches[name]) for name in distributed.share(shelf.missing(batches)))
    with Networks(teacher, names, method.precision) as networks, bar("synthesize", total=own * method.steps) as progress:
        inversion = Inversion(networks, facts, method, terms, batch_size, seed, progress.advance, AdaptiveBatchSize(batch_size))
        made = shelf.all(batches, lambda name: {"images": inversion.made(batches[name])})
    return torch.cat([part["images"] for part in made])


def coupled(method: Method, terms: list[WeightedLoss], facts: TeacherFacts) -> bool:
    """Whether the images of a batch depend on each other."""
    return PARAMETRIZATIONS[method.parametrization].shared or any(term.loss.compares(facts) for term in terms)


@dataclass(frozen=True)
class Inversion:
    """What all batches of one call share."""

    networks: Networks
    facts: TeacherFacts
    method: Method
    terms: list[WeightedLoss]
    batch_size: int  # views in one pass of a network
    seed: int
    advance: Callable[..., None]
    fitting: AdaptiveBatchSize

    def made(self, batch: Sequence[int], pace: float = 1.0, tries: int = TRIES) -> Tensor:
        """As `run`; images whose losses stop being finite, and all that depend on them, begin again at half the rate."""
        together = coupled(self.method, self.terms, self.facts)
        try:
            if together:
                return self.run(batch, pace)
            return self.fitting(lambda size: replace(self, batch_size=size).run(batch, pace))
        except NotFiniteError as error:
            if tries == 1:
                raise
            where, reason = error.where, str(error)  # not the error itself: it holds on to all that has failed
        broken = list(batch) if together or not where else sorted({batch[owner] for owner in where})
        whole = [index for index in batch if index not in broken]
        say(f"synthesize: images {', '.join(map(str, broken))} again at {pace / 2:g} of the rate: {reason}", own=True)
        images = dict(zip(broken, self.made(broken, pace / 2, tries - 1), strict=True))
        if whole:
            images |= zip(whole, self.made(whole, pace, tries), strict=True)
        return torch.stack([images[index] for index in batch])

    def run(self, batch: Sequence[int], pace: float = 1.0) -> Tensor:
        """Optimise the images with these indices, at `pace` times the method's rate.

        Returns:
            (len(batch), 3, H, W) on the CPU.

        Raises:
            NotFiniteError: a loss, with the places in the batch of the images it belongs to.
        """
        method, facts, device = self.method, self.facts, self.facts.low.device
        self.networks.begin()
        starts = [PROCEDURAL[method.start](index, self.seed, facts).to(device) for index in batch]
        parametrization = PARAMETRIZATIONS[method.parametrization](starts, batch, self.seed, facts)
        views = [draw_views(index, self.seed, method, self.terms, facts) for index in batch]
        whole = Views.stack([own[:1] for own in views], device)
        crops = Views.stack([own[1:] for own in views], device) if any(own[1:] for own in views) else None
        rngs = [generator(self.seed, "crops", index) for index in batch]

        optimizer = torch.optim.Adam(parametrization.groups(method.lr or default_lr(facts.sites)), betas=BETAS)
        peaks = [pace * group["lr"] for group in optimizer.param_groups]
        pruning, kept_tokens = Pruning(tuple(method.prune_at)), None
        for step in range(method.steps):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * method.schedule.lr_factor(step, method.steps)
            roll_limit = method.schedule.roll_limit(step, method.steps, min(facts.image_size))
            jitter = Jitter.draw(self.seed, step, roll_limit)
            if method.prune_at:
                jitter = whole_patches(jitter, facts)
                if pruning.is_active(step, method.steps):
                    kept_tokens = self.prune(parametrization, kept_tokens, pruning)
            losses = self.update(parametrization, optimizer, replace(whole, kept_tokens=kept_tokens), batch, jitter, step)
            if crops is not None:
                draws = [torch.rand(len(own) - 1, 4, generator=rng) for own, rng in zip(views, rngs, strict=True)]
                boxes = sub_crops(crops.regions, torch.cat(draws), facts.image_size)
                self.update(parametrization, optimizer, replace(crops, boxes=boxes), batch, jitter, step)
            self.advance(len(batch), **losses)
        images = torch.stack(parametrization.images()).detach().cpu()
        broken = (~images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if broken:  # by the last step, whose loss nobody looked at
            raise NotFiniteError("pixels are not finite", broken)
        return images

    def update(
        self,
        parametrization: ImageParametrization,
        optimizer: torch.optim.Optimizer,
        views: Views,
        batch: Sequence[int],
        jitter: Jitter,
        step: int,
    ) -> dict[str, float]:
        """Take one optimizer step on the views, clamp; return each loss's mean over views."""
        optimizer.zero_grad(set_to_none=True)
        variables = [variable for group in optimizer.param_groups for variable in group["params"]]
        sums: dict[str, float] = {}
        for chunk in views.chunks(self.batch_size):
            images = parametrization.images()
            shown = torch.stack([images[owner] for owner in chunk.owners])  # (V, 3, H, W); once for each view of an image
            fed = jitter(shown if chunk.boxes is None else crop_and_resize(shown, chunk.boxes))
            self.networks.kept_tokens = None if chunk.kept_tokens is None else after_jitter(chunk.kept_tokens, jitter, self.facts)
            total, values = objective(self.terms, self.context(fed, chunk, batch, jitter, step), self.networks)
            total.backward(inputs=variables)
            try:
                found = finite_sums(values, step)
            except NotFiniteError as error:
                raise NotFiniteError(str(error), [chunk.owners[view] for view in error.where]) from None
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value
        optimizer.step()
        parametrization.project()
        return {name: value / len(views.owners) for name, value in sums.items()}

    def context(self, fed: Tensor, views: Views, batch: Sequence[int], jitter: Jitter, step: int) -> SynthContext:
        """Run the teacher on what is fed."""
        return SynthContext(
            **vars(self.networks.run(fed)),
            targets=views.targets,
            facts=self.facts,
            drawn=views.drawn,
            indices=[batch[owner] for owner in views.owners],
            places=views.places,
            step=step,
            steps=self.method.steps,
            seed=self.seed,
            jitter=jitter,
            kept_tokens=self.networks.kept_tokens,
            boxes=views.boxes,
        )

    @torch.no_grad()
    def prune(self, parametrization: ImageParametrization, kept_tokens: Tensor | None, pruning: Pruning) -> Tensor:
        """The patches (B, k) of each image that stay."""
        site = self.facts.sites[-1]
        count = site.grid[0] * site.grid[1] if kept_tokens is None else kept_tokens.shape[1]
        self.networks.kept_tokens = kept_tokens
        rows = attention_rows(self.networks.run(torch.stack(parametrization.images())).recorded, site)
        return most_attended(rows, site, kept_tokens, pruning.remaining(count))
