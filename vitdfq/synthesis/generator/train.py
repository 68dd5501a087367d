"""The generator engine: a conditional generator is trained against the frozen teacher."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.common.errors import NotFiniteError
from vitdfq.runtime.run import Progress, Run
from vitdfq.synthesis.generator.network import (
    CODE_SIZE,
    CONDITION_SCALE,
    ConditionalGenerator,
    estimate_norm_statistics,
)
from vitdfq.synthesis.generator.student_training import StudentTrainer
from vitdfq.synthesis.generator.training_state import TrainingState
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.students import make_learner
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss, finite_sums, listened_names, objective
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.views import Views, draw_views
from vitdfq.synthesis.without_classes import losses_for
from vitdfq.training.trainable import TRIES, trainable

logger = logging.getLogger(__name__)

# Of Adam on the generator. GDFQ (arXiv 2003.03603) takes a rate of .001 for 80,000 steps; after 60 steps at that rate the
# classifier zoo:vit assigns the requested class to 22 % of the images, at this one to 47 %.
LR, BETAS = 0.01, (0.5, 0.999)
GROUP_SIZE = 32  # images a step
STATE, NUM_CHECKPOINTS = "generator", 20  # name of the checkpoint, and how often it is written in a training
STATISTICS_BATCHES, STATISTICS_BATCH_SIZE = 8, 64  # over which the norms' final statistics are taken


@dataclass(frozen=True)
class Samples:
    """The input of a generator for B images of one class each."""

    indices: range
    classes: Tensor  # (B,); 0 where the teacher gives features
    codes: Tensor  # (B, 100)
    inputs: Tensor  # (B, 100 + conditions): the codes, and the draws that losses pass to the generator
    views: Views


@dataclass(frozen=True)
class Sampler:
    """Draws samples by index, each from random streams of its own."""

    facts: TeacherFacts
    method: Method
    losses: list[WeightedLoss]
    seed: int

    def samples(self, indices: range) -> Samples:
        device = self.facts.low.device
        wholes = [draw_views(index, self.seed, self.method, self.losses, self.facts)[0] for index in indices]
        views = Views.stack([[whole] for whole in wholes], device)
        codes = torch.stack([torch.randn(CODE_SIZE, generator=generator(self.seed, "code", index)) for index in indices])
        conditions = [
            views.drawn[weighted.name][name] for weighted in self.losses if (name := weighted.loss.condition) is not None
        ]
        codes = codes.to(device)
        inputs = torch.cat([codes, *(CONDITION_SCALE * draw.reshape(len(draw), -1) for draw in conditions)], dim=1)
        classes = torch.tensor([whole.classes[0] if whole.classes else 0 for whole in wholes], device=device)
        return Samples(indices, classes, codes, inputs, views)

    def batches(self, first: int, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the generator's (inputs, classes) for `count` samples from `first` on; other draws of losses are left out."""
        conditioning = [weighted for weighted in self.losses if weighted.loss.condition is not None]
        sampler = Sampler(self.facts, self.method, conditioning, self.seed)
        for start in range(first, first + count, size):
            samples = sampler.samples(range(start, min(start + size, first + count)))
            yield samples.inputs, samples.classes


@dataclass(frozen=True)
class Trained:
    """A trained generator, and the student that was trained in turn with it."""

    generator: ConditionalGenerator
    student: nn.Module | None  # quantizers fitted, weights still in float and rounded at every pass; None: there was none
    sampler: Sampler

    @torch.no_grad()
    def draw(self, num_images: int, batch_size: int = 32, first: int = 0) -> Tensor:
        """Return images `first` and on, (num_images, 3, H, W), on the CPU; classes take turns. No image depends on the others."""
        facts = self.sampler.facts
        batches = self.sampler.batches(first, num_images, batch_size)
        return torch.cat([self.generator(*batch).clamp(facts.low, facts.high).cpu() for batch in batches])


def generate(
    teacher: nn.Module, facts: TeacherFacts, method: Method, *, num_images: int, batch_size: int, seed: int, run: Run
) -> Tensor:
    """Train a generator against the frozen teacher and draw from it. Returns (num_images, 3, H, W) on the CPU.

    Every process does the same, since each step needs the result of the one before. `run` keeps the state of the training.
    """
    trained = _train_generator(teacher, facts, method, batch_size=method.group_size or GROUP_SIZE, seed=seed, run=run)
    return trained.draw(num_images, batch_size)


def train_generator(
    teacher: nn.Module,
    method: Method,
    *,
    batch_size: int = GROUP_SIZE,
    seed: int = 0,
    student: nn.Module | None = None,
    run: Run | None = None,
) -> Trained:
    """Train a conditional generator (GDFQ's form, arXiv 2003.03603) with a method's losses against the frozen teacher.

    Every step draws codes, classes and the losses' draws anew, generates a batch, runs the teacher and takes one Adam step on the
    generator; then the student, if there is one, takes one step towards the teacher on the same images.

    Args:
        teacher: a model of `load_teacher` or `prepare`; left unchanged.
        method: of `resolve_method(name, engine="generator", ...)`. `method.student` names the bits of a student to make.
        batch_size: images a step.
        seed: of everything random.
        student: your own, in place of `method.student`, with fitted quantizers. It is trained in place; its weights stay off
            their grids.
        run: keeps the state of the training, twenty times in its course; receives the progress.

    Raises:
        ValueError: a loss that stopped being finite, or that compares with a student of other bits; the teacher gives features,
            and the method needs classes.
    """
    facts = TeacherFacts.of(teacher)
    return _train_generator(teacher, facts, method, batch_size=batch_size, seed=seed, student=student, run=run or Run())


def _train_generator(
    teacher: nn.Module,
    facts: TeacherFacts,
    method: Method,
    *,
    batch_size: int,
    seed: int,
    run: Run,
    student: nn.Module | None = None,
) -> Trained:
    sampler = Sampler(facts, method, losses_for(method, facts), seed)
    num_conditions = sampler.samples(range(1)).inputs.shape[1] - CODE_SIZE
    network = ConditionalGenerator(facts, num_conditions, generator(seed, "generator"))
    fitted = student is not None
    if student is None and method.student is not None:
        student = make_learner(teacher, method.student)
    with ExitStack() as opened:
        networks = opened.enter_context(Networks(teacher, listened_names(sampler.losses, facts), method.precision))
        trainer = None
        if student is not None:
            networks.adopt(student)
            parameters = opened.enter_context(trainable([student]))
            trainer = StudentTrainer(student, parameters, method.student_training, method.steps, seed, fitted)
        bar = opened.enter_context(run.progress("synthesize", total=method.steps))
        opened.enter_context(torch.enable_grad())
        optimizer = torch.optim.Adam(network.parameters(), lr=method.lr or LR, betas=BETAS)
        training = Training(TrainingState(network, optimizer, networks, trainer), sampler, batch_size, method.lr or LR)
        training.run_all(run, bar)
    estimate_norm_statistics(network, sampler.batches(0, STATISTICS_BATCHES * STATISTICS_BATCH_SIZE, STATISTICS_BATCH_SIZE))
    return Trained(network, student, sampler)


@dataclass(frozen=True)
class Training:
    """Alternates steps of the generator and of the student."""

    state: TrainingState
    sampler: Sampler
    batch_size: int
    peak_lr: float  # of the generator

    def run_all(self, run: Run, bar: Progress) -> None:
        """Take all steps; where a loss stops being finite, go back to the last checkpoint and on at half the rate."""
        state, steps = self.state, self.sampler.method.steps
        saved, done = run.resume(STATE), 0
        if saved is not None:
            done = state.restore(saved)
            bar.skip(done)
        sound = state.state(done)
        while done < steps:
            try:
                means = self.step(done)
            except NotFiniteError as error:
                if state.lr_factor <= 0.5 ** (TRIES - 1):
                    raise
                done = state.restore(sound)
                state.halve_rates()
                logger.info(f"synthesize: from step {done} on again at {state.lr_factor:g} of the rate: {error}")
                sound = state.state(done)
                continue
            done += 1
            bar.advance(**means)
            if done % max(1, steps // NUM_CHECKPOINTS) == 0:
                sound = state.state(done)
                run.checkpoint(STATE, sound)

    def step(self, step: int) -> dict[str, float]:
        """Update the generator, then the student. Returns the mean over the batch of each loss.

        Raises:
            NotFiniteError: a loss.
        """
        state, sampler, method, facts = self.state, self.sampler, self.sampler.method, self.sampler.facts
        state.optimizer.param_groups[0]["lr"] = state.lr_factor * self.peak_lr * method.schedule.lr_factor(step, method.steps)
        samples = sampler.samples(range(step * self.batch_size, (step + 1) * self.batch_size))
        jitter = Jitter.draw(sampler.seed, step, method.schedule.roll_limit(step, method.steps, min(facts.image_size)))
        images = jitter(state.generator(samples.inputs, samples.classes))
        if state.student_trainer is not None:
            state.student_trainer.fit_ranges(images, step)
        ctx = self._context(samples, images, jitter, step)
        total, values = objective(sampler.losses, ctx, state.networks)
        state.optimizer.zero_grad(set_to_none=True)
        total.backward(inputs=list(state.generator.parameters()))
        means = {name: value / self.batch_size for name, value in finite_sums(values, step).items()}
        state.optimizer.step()
        if state.student_trainer is not None:
            means |= state.student_trainer.train_step(state.networks, images, ctx.outputs, step)
        return means

    def _context(self, samples: Samples, images: Tensor, jitter: Jitter, step: int) -> SynthContext:
        """Run the teacher on images (B, 3, H, W)."""
        return SynthContext(
            **vars(self.state.networks.run(images)),
            targets=samples.views.targets,
            facts=self.sampler.facts,
            drawn=samples.views.drawn,
            indices=list(samples.indices),
            places=samples.views.places,
            step=step,
            steps=self.sampler.method.steps,
            seed=self.sampler.seed,
            jitter=jitter,
            codes=samples.codes,
        )
