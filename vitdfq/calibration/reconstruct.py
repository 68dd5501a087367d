"""Block-by-block reconstruction: move each block's weights until its quantized output matches the float block's.

In host memory are three streams (see `streams.py`): the quantized and the float one in front of a unit, and the float one behind
it; with `independent` two. On the device is what one unit needs to learn from one batch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of, forwarded
from vitdfq.calibration.held_out import HeldOutValidation, hold_out
from vitdfq.calibration.objectives import OBJECTIVES, Loss
from vitdfq.calibration.rounding import SoftRounding, learned_rounding
from vitdfq.common.lookup import lookup
from vitdfq.models import Unit, units
from vitdfq.quantization.fitted import require_fitted
from vitdfq.quantization.modules import restore_state, state_of, weighted_modules
from vitdfq.runtime import distributed, progress
from vitdfq.runtime.partial_results import PartialResults
from vitdfq.synthesis.seeds import generator
from vitdfq.training.batch_sharding import BatchSharding, sharding_for
from vitdfq.training.optimizer import AdamWarmupCosine
from vitdfq.training.trainable import TrainableParameters, finite, retry_with_smaller_lr, trainable

ROUNDINGS = {"straight_through": False, "adaround": True}  # name -> whether rounding has parameters of its own
FREE_SHARE = 0.2  # of the iterations in which AdaRound's gates may stay undecided
SHARPNESS = (20.0, 2.0)  # of AdaRound's regulariser, from the end of that share to the last iteration
ROUNDING_WEIGHT, GATE_LR = 0.1, 1e-3


def reconstruct(
    student: nn.Module,
    teacher: nn.Module,
    images: Tensor,
    *,
    iterations: int = 200,
    lr: float = 1e-3,
    scale_lr: float = 1e-4,
    batch_size: int = 32,
    keep: float = 0.5,
    objective: str = "mse",
    rounding: str = "straight_through",
    guarded: bool = True,
    independent: bool = False,
    seed: int = 0,
    shelf: PartialResults | None = None,
) -> None:
    """Train each unit of the quantized student, in order, against the float unit (BRECQ, arXiv 2102.05426).

    Inputs are mixed element by element from the quantized and the float stream (QDrop, arXiv 2203.05740), which keeps few or
    odd images from being overfitted; the quantized stream is refreshed after each unit. A unit whose training made the whole
    student worse on images not trained on is put back (see `HeldOutValidation`).

    Several processes take a share of each batch and add up their gradients, so that all train the same student; every one of them
    has the streams of all images.

    Args:
        student: changed in place; its quantizers must have been fitted.
        teacher: the float model the student was made from.
        images: (N, 3, H, W).
        iterations: Adam steps a unit.
        lr: Adam's rate for weights, in quantization steps of each, with a short warm-up, falling to zero by a half cosine.
        scale_lr: the same for activation scales, relative to each; 0 leaves them.
        batch_size: images a step, and in one forward pass; bounds memory on the device.
        keep: share of input elements taken from the quantized stream.
        objective: what is minimised, one of `OBJECTIVES`.
        rounding: "straight_through" trains weights through the rounding; "adaround" trains which way each weight is rounded
            (arXiv 2004.10568), which takes thousands of iterations.
        guarded: put a unit back when the guard's images say so.
        independent: train every unit on the teacher's stream alone (`keep` says nothing then), so that units instead of batches
            can be shared out over the processes. A unit then knows nothing of the errors before it.
        seed: of the batches and the mixing, and of the guard's images.
        shelf: keeps finished units.

    Raises:
        ValueError: an unknown objective or rounding; quantizers that are not fitted; a loss that stopped being finite.
    """
    require_fitted(student, "reconstruct")
    build = lookup(objective, OBJECTIVES, "objective")
    gates = lookup(rounding, ROUNDINGS, "rounding")
    images = images.cpu()  # where all streams are
    shown, held_out = hold_out(images) if guarded else (images, images[:0])
    guard = HeldOutValidation(teacher, held_out, seed=seed) if guarded else None
    losses = build(teacher, shown)
    rng, shelf = torch.Generator().manual_seed(seed), shelf or PartialResults()
    pairs = list(zip(units(student), units(teacher), strict=True))
    shares = BatchSharding(together=False) if independent else sharding_for(min(batch_size, len(shown)))
    names = [unit.name for unit, _ in pairs]
    own = distributed.share(shelf.missing(names)) if independent else names  # what this process trains, or finds on the shelf
    with progress.bar("reconstruct", total=len(own) * iterations) as bar:
        training = Training(iterations, lr, scale_lr, batch_size, keep, gates, device_of(student), shares, rng, bar)
        chain = Chain(student, pairs, shown, losses, guard, training, shelf)
        put_back = chain.each_alone(seed) if independent else chain.in_order()
    if put_back:
        progress.say(f"reconstruct: {put_back} of {len(pairs)} units put back, worse on images not trained on")


@dataclass(frozen=True)
class Chain:
    """The units of student and teacher, and what trains them."""

    student: nn.Module
    pairs: list[tuple[Unit, Unit]]
    shown: Tensor
    losses: Callable[[int], Loss]
    guard: HeldOutValidation | None
    training: "Training"
    shelf: PartialResults

    def behind(self, unit: Unit, stream: Tensor) -> Tensor:
        """The stream behind a unit, of the one in front of it."""
        return forwarded(unit.forward, stream, self.training.device, self.training.batch_size)

    def in_order(self) -> int:
        """Each unit on what the ones before it, trained, hand on. Returns how many were put back."""
        quantized, real, rng, put_back = self.shown, self.shown, self.training.rng, 0
        for position, (unit, float_unit) in enumerate(self.pairs):
            target = self.behind(float_unit, real)
            part = self.shelf.get(unit.name)
            if part is None:
                if self.guard:
                    self.guard.start(self.student)
                with trainable(unit.modules) as trainables:
                    old = self.training.run(unit, trainables, self.losses(position), quantized, real, target)
                    worse = self.guard is not None and not self.guard.accepts(self.student)
                    if worse:
                        trainables.restore(old)
                part = distributed.agreed(state_of(unit.modules)) | {"rng": rng.get_state(), "worse": torch.tensor(worse)}
                self.shelf.put(unit.name, part)
            else:
                self.training.bar.skip(self.training.iterations)
            rng.set_state(part.pop("rng"))
            put_back += int(part.pop("worse"))
            restore_state(unit.modules, part)
            real = target  # first: one stream fewer while the next one is made
            quantized = self.behind(unit, quantized)
        return put_back

    def each_alone(self, seed: int) -> int:
        """Each unit on the teacher's stream, in one of the processes; then put in, one after the other. Returns as `in_order`."""
        before = {unit.name: state_of(unit.modules) for unit, _ in self.pairs}
        places = {unit.name: place for place, (unit, _) in enumerate(self.pairs)}
        real, reached = self.shown, 0  # the teacher's stream in front of unit `reached`; parts come in the order of the units

        def make(name: str) -> dict[str, Tensor]:
            nonlocal real, reached
            unit, float_unit = self.pairs[places[name]]
            while reached < places[name]:
                real, reached = self.behind(self.pairs[reached][1], real), reached + 1
            target = self.behind(float_unit, real)
            own = replace(self.training, keep=0.0, rng=generator(seed, "reconstruct", places[name]))
            with trainable(unit.modules) as trainables:
                own.run(unit, trainables, self.losses(places[name]), real, real, target)
            trained = {key: value.cpu() for key, value in state_of(unit.modules).items()}  # it goes to the other processes
            restore_state(unit.modules, before[name])
            return trained

        found, put_back = self.shelf.all(places, make), 0
        if self.guard:
            self.guard.start(self.student)
        for (unit, _), trained in zip(self.pairs, found, strict=True):
            restore_state(unit.modules, trained)
            if self.guard and not self.guard.accepts(self.student):
                restore_state(unit.modules, before[unit.name])
                put_back += 1
        return put_back


@dataclass(frozen=True)
class Training:
    """How each unit is trained."""

    iterations: int
    lr: float
    scale_lr: float
    batch_size: int
    keep: float
    gates: bool
    device: torch.device
    shares: BatchSharding
    rng: torch.Generator
    bar: progress.Bar

    def run(
        self, unit: Unit, trainables: TrainableParameters, loss_of: Loss, quantized: Tensor, real: Tensor, target: Tensor
    ) -> list[Tensor]:
        """Train one unit; where its loss stops being finite, again from its start at a smaller rate. Returns that start."""
        old = trainables.snapshot()

        def train(pace: float) -> None:
            batches = _mixed(quantized, real, target, self)
            with _rounding(unit, self.gates) as soft:
                self._descend(unit, trainables, loss_of, batches, soft, pace)
            trainables.require_finite(f"reconstruct: {unit.name}")

        retry_with_smaller_lr(train, undo=lambda: trainables.restore(old))
        return old

    def _descend(
        self,
        unit: Unit,
        trainables: TrainableParameters,
        loss_of: Loss,
        batches: Iterator[tuple[Tensor, Tensor]],
        soft: list[SoftRounding],
        pace: float,
    ) -> None:
        groups = trainables.groups(pace * self.lr, pace * self.scale_lr)
        if soft:
            groups.append({"params": [rounding.logit for rounding in soft], "lr": pace * GATE_LR})
        descent = AdamWarmupCosine(groups, self.iterations)
        for step, (mixed, target) in enumerate(batches):
            with torch.enable_grad():
                loss = loss_of(unit.forward(mixed), target, self.shares.summed)
                done = step / self.iterations
                if done >= FREE_SHARE:
                    first, last = SHARPNESS
                    sharpness = last + (first - last) * (1 - done) / (1 - FREE_SHARE)
                    undecided = sum(ROUNDING_WEIGHT * rounding.undecided(sharpness) for rounding in soft)
                    loss = loss + self.shares.once() * undecided
            value = finite(self.shares.summed(loss.detach()), f"reconstruct: the loss of {unit.name}", step)
            loss.backward()
            self.shares.sum_gradients(descent.parameters)
            descent.step()
            self.bar.advance(loss=value)


def _mixed(quantized: Tensor, real: Tensor, target: Tensor, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (input, target) of this process's share of each batch, on the device.

    An input element is of the quantized stream with probability `keep`. All processes draw for the whole batch, alike.
    """
    for _ in range(training.iterations):
        batch = torch.randperm(len(target), generator=training.rng)[: training.batch_size]
        drawn = training.shares.of(torch.rand(len(batch), *quantized.shape[1:], generator=training.rng))
        batch = training.shares.of(batch)
        mixed = torch.where(drawn < training.keep, quantized[batch], real[batch])
        yield mixed.to(training.device), target[batch].to(training.device)


@contextmanager
def _rounding(unit: Unit, gates: bool) -> Iterator[list[SoftRounding]]:
    if not gates:
        yield []
        return
    with learned_rounding([module for owner in unit.modules for module in weighted_modules(owner)]) as soft:
        yield soft
