"""The image engine: images are optimized against the frozen teacher."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from vitdfq.common.batch_size import AdaptiveBatchSize
from vitdfq.common.errors import NotFiniteError
from vitdfq.runtime.run import Run
from vitdfq.synthesis.inversion.parametrization import BETAS, PARAMETRIZATIONS, ImageParametrization
from vitdfq.synthesis.objective.attention_rows import attention_rows, rows_name
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.regions import crop_and_resize, sub_crops
from vitdfq.synthesis.objective.token_pruning import Pruning, after_jitter, check_prunable, most_attended, whole_patches
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss, finite_sums, listened_names, objective
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.procedural import PROCEDURAL
from vitdfq.synthesis.schedule import default_lr
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.views import Views, draw_views
from vitdfq.synthesis.without_classes import losses_for
from vitdfq.training.trainable import TRIES

logger = logging.getLogger(__name__)

GROUP_SIZE = 16  # size of the groups of images that depend on each other, where a loss or a decoder makes them


def invert(
    teacher: nn.Module, facts: TeacherFacts, method: Method, *, num_images: int, batch_size: int, seed: int, run: Run
) -> Tensor:
    """Optimize images against the frozen teacher, `batch_size` at a time; the processes share the batches.

    Returns:
        (num_images, 3, H, W) on the CPU, in every process.
    """
    losses = losses_for(method, facts)
    batch_size = images_in_a_batch(method, facts, batch_size)
    batches = batches_of(num_images, batch_size)
    names = listened_names(losses, facts)
    if method.prune_at:
        check_prunable(teacher, facts)
        names.append(rows_name(facts.sites[-1]))
    missing = run.missing(batches)
    num_here = sum(len(batches[name]) for name in run.share(missing))
    num_finished = num_images - sum(len(batches[name]) for name in missing)
    total = (num_here + num_finished) * method.steps
    with Networks(teacher, names, method.precision) as networks, run.progress("synthesize", total) as bar:
        bar.skip(num_finished * method.steps)
        inversion = Inversion(networks, facts, method, losses, batch_size, seed, bar.advance, AdaptiveBatchSize(batch_size))
        parts = run.compute_missing(batches, lambda name: {"images": inversion.robust(batches[name])})
    return torch.cat([part["images"] for part in parts])


def images_in_a_batch(method: Method, facts: TeacherFacts, batch_size: int) -> int:
    """Where the images of a batch depend on each other, their number is part of the method, not a matter of speed."""
    if coupled(method, losses_for(method, facts), facts):
        return method.group_size or GROUP_SIZE
    return batch_size


def batches_of(num_images: int, batch_size: int) -> dict[str, range]:
    """The indices of each batch, by the name of the part that keeps its images."""
    ranges = [range(first, min(first + batch_size, num_images)) for first in range(0, num_images, batch_size)]
    return {f"images_{batch.start}_{batch.stop}": batch for batch in ranges}


def coupled(method: Method, losses: list[WeightedLoss], facts: TeacherFacts) -> bool:
    """Whether the images of a batch depend on each other."""
    return PARAMETRIZATIONS[method.parametrization].shared or any(weighted.loss.compares(facts) for weighted in losses)


@dataclass(frozen=True)
class Inversion:
    """The optimization of any batch of one call."""

    networks: Networks
    facts: TeacherFacts
    method: Method
    losses: list[WeightedLoss]
    batch_size: int  # views in one pass of a network
    seed: int
    advance: Callable[..., None]  # counts image steps in the progress
    adaptive: AdaptiveBatchSize

    def robust(self, batch: Sequence[int], lr_factor: float = 1.0, tries: int = TRIES) -> Tensor:
        """As `optimize`; images whose losses stop being finite, and all that depend on them, begin again at half the rate."""
        dependent = coupled(self.method, self.losses, self.facts)
        try:
            if dependent:
                return self.optimize(batch, lr_factor)
            return self.adaptive(lambda size: replace(self, batch_size=size).optimize(batch, lr_factor))
        except NotFiniteError as error:
            if tries == 1:
                raise
            where, reason = error.where, str(error)  # not the error itself: its traceback holds all tensors
        broken = list(batch) if dependent or not where else sorted({batch[owner] for owner in where})
        sound = [index for index in batch if index not in broken]
        message = f"synthesize: images {', '.join(map(str, broken))} again at {lr_factor / 2:g} of the rate: {reason}"
        logger.info(message, extra={"every_process": True})
        images = dict(zip(broken, self.robust(broken, lr_factor / 2, tries - 1), strict=True))
        if sound:
            images |= zip(sound, self.robust(sound, lr_factor, tries), strict=True)
        return torch.stack([images[index] for index in batch])

    def optimize(self, batch: Sequence[int], lr_factor: float = 1.0) -> Tensor:
        """Optimize the images with these indices, at `lr_factor` times the method's rate.

        Returns:
            (len(batch), 3, H, W) on the CPU.

        Raises:
            NotFiniteError: a loss; with the positions in the batch of the images that it belongs to.
        """
        method, facts, device = self.method, self.facts, self.facts.low.device
        self.networks.begin()
        starts = [PROCEDURAL[method.start](index, self.seed, facts).to(device) for index in batch]
        parametrization = PARAMETRIZATIONS[method.parametrization](starts, batch, self.seed, facts)
        views = [draw_views(index, self.seed, method, self.losses, facts) for index in batch]
        whole = Views.stack([image_views[:1] for image_views in views], device)
        has_crops = any(image_views[1:] for image_views in views)
        crops = Views.stack([image_views[1:] for image_views in views], device) if has_crops else None
        rngs = [generator(self.seed, "crops", index) for index in batch]

        groups = parametrization.groups(method.lr or default_lr(facts.sites))
        optimizer = torch.optim.Adam([group | {"lr": lr_factor * group["lr"]} for group in groups], betas=BETAS)
        scheduler = LambdaLR(optimizer, method.schedule.lr_lambda(method.steps))
        pruning, kept_tokens = Pruning(tuple(method.prune_at)), None
        for step in range(method.steps):
            roll_limit = method.schedule.roll_limit(step, method.steps, min(facts.image_size))
            jitter = Jitter.draw(self.seed, step, roll_limit)
            if method.prune_at:
                jitter = whole_patches(jitter, facts)
                if pruning.is_active(step, method.steps):
                    kept_tokens = self.prune(parametrization, kept_tokens, pruning)
            values = self.update(parametrization, optimizer, replace(whole, kept_tokens=kept_tokens), batch, jitter, step)
            if crops is not None:
                draws = [torch.rand(len(image_views) - 1, 4, generator=rng) for image_views, rng in zip(views, rngs, strict=True)]
                boxes = sub_crops(crops.regions, torch.cat(draws), facts.image_size)
                self.update(parametrization, optimizer, replace(crops, boxes=boxes), batch, jitter, step)
            if step + 1 < method.steps:  # a schedule is defined for the steps of the run alone
                scheduler.step()
            self.advance(len(batch), **values)
        images = torch.stack(parametrization.images()).detach().cpu()
        broken = (~images.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if broken:  # by the last step, after which no loss was computed
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
        """Take one optimizer step on the views and clamp; return the mean over views of each loss."""
        optimizer.zero_grad(set_to_none=True)
        variables = [variable for group in optimizer.param_groups for variable in group["params"]]
        sums: dict[str, float] = {}
        for chunk in views.chunks(self.batch_size):
            images = parametrization.images()
            shown = torch.stack([images[owner] for owner in chunk.owners])  # (V, 3, H, W); once for each view of an image
            fed = jitter(shown if chunk.boxes is None else crop_and_resize(shown, chunk.boxes))
            self.networks.kept_tokens = None if chunk.kept_tokens is None else after_jitter(chunk.kept_tokens, jitter, self.facts)
            total, values = objective(self.losses, self.context(fed, chunk, batch, jitter, step), self.networks)
            total.backward(inputs=variables)
            try:
                chunk_sums = finite_sums(values, step)
            except NotFiniteError as error:
                raise NotFiniteError(str(error), [chunk.owners[view] for view in error.where]) from None
            for name, value in chunk_sums.items():
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
