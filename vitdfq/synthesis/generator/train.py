"""The generator engine: a conditional generator is the variable, the teacher stays as it is."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.common.errors import NotFiniteError
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.runtime.progress import bar, say
from vitdfq.synthesis.generator.network import CODE_SIZE, CONDITION_SCALE, ConditionalGenerator, estimate_norm_statistics
from vitdfq.synthesis.generator.student_training import StudentTrainer
from vitdfq.synthesis.generator.training_state import TrainingState
from vitdfq.synthesis.objective.context import SynthContext, TeacherFacts
from vitdfq.synthesis.objective.jitter import Jitter
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.students import make_learner
from vitdfq.synthesis.objective.weighted_losses import WeightedLoss, finite_sums, listened_names, objective, resolve_losses
from vitdfq.synthesis.presets import Method
from vitdfq.synthesis.seeds import generator
from vitdfq.synthesis.targets.views import Views, draw_views
from vitdfq.training.trainable import TRIES, trainable

# Of Adam on the generator. GDFQ (arXiv 2003.03603) takes a rate of .001 for 80,000 steps; after 60 steps at that rate the
# classifier zoo:vit sees the class asked for in 22 % of the images, at this one in 47 %.
LR, BETAS = 0.01, (0.5, 0.999)
GROUP_SIZE = 32  # images a step
STATE, TIMES_KEPT = "generator", 20  # the shelf's part, and how often in a training it is written
SETTLE_BATCHES, SETTLE_SIZE = 8, 64  # images over which the norms' final statistics are taken


@dataclass(frozen=True)
class Samples:
    """What a generator is asked for: B images of one class each."""

    numbers: range
    classes: Tensor  # (B,)
    codes: Tensor  # (B, 100)
    inputs: Tensor  # (B, 100 + conditions), what the generator reads: the codes, and what losses tell it
    views: Views


@dataclass(frozen=True)
class Source:
    """Draws samples by number, each from streams of its own."""

    facts: TeacherFacts
    method: Method
    terms: list[WeightedLoss]
    seed: int

    def samples(self, numbers: range) -> Samples:
        device = self.facts.low.device
        wholes = [draw_views(number, self.seed, self.method, self.terms, self.facts)[0] for number in numbers]
        views = Views.stack([[whole] for whole in wholes], device)
        codes = torch.stack([torch.randn(CODE_SIZE, generator=generator(self.seed, "code", number)) for number in numbers])
        told = [views.drawn[term.name][name] for term in self.terms if (name := term.loss.condition) is not None]
        codes = codes.to(device)
        inputs = torch.cat([codes, *(CONDITION_SCALE * draw.reshape(len(draw), -1) for draw in told)], dim=1)
        return Samples(numbers, torch.tensor([whole.classes[0] for whole in wholes], device=device), codes, inputs, views)

    def batches(self, first: int, count: int, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what the generator reads for `count` samples from `first` on: (inputs, classes); priors are not drawn."""
        telling = [term for term in self.terms if term.loss.condition is not None]
        source = Source(self.facts, self.method, telling, self.seed)
        for start in range(first, first + count, size):
            samples = source.samples(range(start, min(start + size, first + count)))
            yield samples.inputs, samples.classes


@dataclass(frozen=True)
class Trained:
    """A trained generator, and the student that learned in turn with it."""

    generator: ConditionalGenerator
    student: nn.Module | None  # quantizers fitted, weights still in float and rounded at every pass; None if none was asked for
    source: Source

    @torch.no_grad()
    def draw(self, num_images: int, batch_size: int = 32, first: int = 0) -> Tensor:
        """Return images `first` and on, (num_images, 3, H, W), on the CPU; classes take turns. No image depends on the others."""
        facts = self.source.facts
        batches = self.source.batches(first, num_images, batch_size)
        return torch.cat([self.generator(*batch).clamp(facts.low, facts.high).cpu() for batch in batches])


def generate(
    teacher: nn.Module, facts: TeacherFacts, method: Method, *, num_images: int, batch_size: int, seed: int, shelf: PartialResults
) -> Tensor:
    """Train a generator against the frozen teacher and draw from it. Returns (num_images, 3, H, W) on the CPU.

    Every process does the same: what one step leaves the next one needs. `shelf` keeps the training as it stands.
    """
    trained = train_generator(teacher, method, batch_size=method.group_size or GROUP_SIZE, seed=seed, shelf=shelf)
    return trained.draw(num_images, batch_size)


def train_generator(
    teacher: nn.Module,
    method: Method,
    *,
    batch_size: int = 32,
    seed: int = 0,
    student: nn.Module | None = None,
    shelf: PartialResults | None = None,
) -> Trained:
    """Train a conditional generator (GDFQ's form, arXiv 2003.03603) with a method's losses against the frozen teacher.

    Every step draws codes, classes and the losses' draws anew, paints a batch, runs the teacher and takes one Adam step on the
    generator; then the student, if there is one, takes one towards the teacher on the same images.

    Args:
        teacher: a model of `load_teacher`, or what `prepare` made of it; left as it was.
        method: of `resolve_method(name, engine="generator", ...)`. `method.student` names the bits of a student to make.
        batch_size: images a step.
        seed: of everything random.
        student: one of your own in place of `method.student`, its quantizers fitted. It learns in place; its weights stay off
            their grids.
        shelf: keeps the training as it stands, twenty times in its course.

    Raises:
        ValueError: a loss that stopped being finite, or that compares with a student of other bits.
    """
    facts = TeacherFacts.of(teacher)
    source = Source(facts, method, resolve_losses(method.losses), seed)
    num_conditions = source.samples(range(1)).inputs.shape[1] - CODE_SIZE
    painter = ConditionalGenerator(facts, num_conditions, generator(seed, "generator"))
    learner = student if student is not None or method.student is None else make_learner(teacher, method.student)
    with ExitStack() as opened:
        networks = opened.enter_context(Networks(teacher, listened_names(source.terms, facts), method.precision))
        pupil = None
        if learner is not None:
            networks.adopt(learner)
            trainables = opened.enter_context(trainable([learner]))
            pupil = StudentTrainer(learner, trainables, method.student_training, method.steps, seed, fitted=student is not None)
        opened.enter_context(torch.enable_grad())
        _train(painter, source, networks, pupil, batch_size, shelf or PartialResults())
    estimate_norm_statistics(painter, source.batches(0, SETTLE_BATCHES * SETTLE_SIZE, SETTLE_SIZE))
    return Trained(painter, learner, source)


def _train(
    painter: ConditionalGenerator,
    source: Source,
    networks: Networks,
    pupil: StudentTrainer | None,
    batch_size: int,
    shelf: PartialResults,
) -> None:
    """Alternate steps of the generator and of the student; where a loss stops being finite, go back a piece, then slower."""
    method = source.method
    optimizer = torch.optim.Adam(painter.parameters(), lr=method.lr or LR, betas=BETAS)
    course, part, done = TrainingState(painter, optimizer, networks, pupil), shelf.get(STATE), 0
    training = Training(course, source, batch_size, peak=optimizer.param_groups[0]["lr"])
    with bar("synthesize", total=method.steps) as progress:
        if part is not None:
            done = course.restore(part)
            progress.skip(done)
        sound = course.state(done)
        while done < method.steps:
            try:
                means = training.step(done)
            except NotFiniteError as error:
                if course.pace <= 0.5 ** (TRIES - 1):
                    raise
                done = course.restore(sound)
                course.slower()
                say(f"synthesize: from step {done} on again at {course.pace:g} of the rate: {error}")
                sound = course.state(done)
                continue
            done += 1
            progress.advance(**means)
            if done % max(1, method.steps // TIMES_KEPT) == 0:
                sound = course.state(done)
                shelf.put(STATE, sound)


@dataclass(frozen=True)
class Training:
    """A step of it, whichever is next."""

    course: TrainingState
    source: Source
    batch_size: int
    peak: float  # rate of the generator

    def step(self, step: int) -> dict[str, float]:
        """Move the generator, then the student. Returns each loss's mean over the batch.

        Raises:
            NotFiniteError: a loss.
        """
        course, source, method, facts = self.course, self.source, self.source.method, self.source.facts
        course.optimizer.param_groups[0]["lr"] = course.pace * self.peak * method.schedule.lr_factor(step, method.steps)
        samples = source.samples(range(step * self.batch_size, (step + 1) * self.batch_size))
        jitter = Jitter.draw(source.seed, step, method.schedule.roll_limit(step, method.steps, min(facts.image_size)))
        fed = jitter(course.painter(samples.inputs, samples.classes))
        if course.pupil is not None:
            course.pupil.look(fed, step)
        ctx = _context(course.networks, source, samples, fed, jitter, step)
        total, values = objective(source.terms, ctx, course.networks)
        course.optimizer.zero_grad(set_to_none=True)
        total.backward(inputs=list(course.painter.parameters()))
        means = {name: value / self.batch_size for name, value in finite_sums(values, step).items()}
        course.optimizer.step()
        if course.pupil is not None:
            means |= course.pupil.learn(course.networks, fed, ctx.logits, step)
        return means


def _context(networks: Networks, source: Source, samples: Samples, fed: Tensor, jitter: Jitter, step: int) -> SynthContext:
    """Run the teacher on what is fed."""
    return SynthContext(
        **vars(networks.run(fed)),
        targets=samples.views.targets,
        facts=source.facts,
        drawn=samples.views.drawn,
        indices=list(samples.numbers),
        places=samples.views.places,
        step=step,
        steps=source.method.steps,
        seed=source.seed,
        jitter=jitter,
        codes=samples.codes,
    )
