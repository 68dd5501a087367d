"""Block-by-block reconstruction: train each unit of the student to reproduce the output of the float unit.

Host memory holds three copies of cached activations (`cached_activations.py`): the quantized and the float input of a unit, and
its float output; with `independent` two. The device holds one unit's training on one batch.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.calibration.held_out import HeldOutValidation, hold_out
from vitdfq.calibration.objectives import OBJECTIVES, Loss, total_loss
from vitdfq.calibration.rounding import SoftRounding, learned_rounding
from vitdfq.common.lookup import lookup
from vitdfq.common.options import check_counts, check_rates
from vitdfq.models import Unit, units
from vitdfq.quantization.fitted import require_fitted
from vitdfq.quantization.modules import restore_state, state_of, weighted_modules
from vitdfq.runtime.run import Progress, Run, Tensors
from vitdfq.synthesis.seeds import generator
from vitdfq.training.batch_sharding import run_for_batches, sum_gradients
from vitdfq.training.optimizer import AdamWarmupCosine
from vitdfq.training.trainable import TrainableParameters, finite, retry_with_smaller_lr, trainable

logger = logging.getLogger(__name__)

ROUNDINGS = {"straight_through": False, "adaround": True}  # name -> whether rounding has trainable parameters
FREE_SHARE = 0.2  # share of the iterations, from the first, without AdaRound's regularizer
SHARPNESS = (20.0, 2.0)  # of AdaRound's regularizer, in its first and in the last iteration
ROUNDING_WEIGHT, GATE_LR = 0.1, 1e-3


@dataclass(frozen=True)
class ReconstructOptions:
    """Options of `reconstruct`.

    Attributes:
        iterations: Adam steps for each unit.
        lr: peak learning rate of weights, in quantization steps; a short warm-up and a half-cosine decay to zero.
        scale_lr: peak learning rate of activation scales, as a share of each; 0: scales are not trained.
        batch_size: images in a step, and in one forward pass; bounds memory on the device.
        keep: share of input elements that are quantized activations; the others are float ones.
        objective: the loss, one of `OBJECTIVES`.
        rounding: "straight_through" trains weights through the rounding; "adaround" trains whether each weight is rounded up or
            down (arXiv 2004.10568), which takes thousands of iterations.
        guarded: undo the training of a unit if it increases the student's error on held-out images.
        independent: train every unit on float activations alone (`keep` is ignored), so that units instead of batches are shared
            over the processes. A unit then ignores the errors of the units before it.
        seed: of batches and mixing, and of the held-out procedural images.

    Raises:
        ValueError: an unknown objective or rounding.
    """

    iterations: int = 200
    lr: float = 1e-3
    scale_lr: float = 1e-4
    batch_size: int = 32
    keep: float = 0.5
    objective: str = "mse"
    rounding: str = "straight_through"
    guarded: bool = True
    independent: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "iterations", "batch_size")
        check_rates(self, "lr", "scale_lr")
        lookup(self.objective, OBJECTIVES, "objective")
        lookup(self.rounding, ROUNDINGS, "rounding")


def reconstruct(
    student: nn.Module, teacher: nn.Module, images: Tensor, options: ReconstructOptions | None = None, *, run: Run | None = None
) -> None:
    """Train each unit of the quantized student, in order, against the float unit (BRECQ, arXiv 2102.05426).

    Inputs are mixed element by element from quantized and float activations (QDrop, arXiv 2203.05740), which reduces overfitting
    of few or unusual images. The quantized activations are computed anew after each unit. If the training of a unit increases
    the error of the whole student on held-out images, it is undone (`HeldOutValidation`). A unit without quantized layers,
    such as the last one of a model without a head, has nothing to train.

    Several processes each take a share of a batch and sum their gradients, so that all train the same student; each caches the
    activations of all images.

    Args:
        student: changed in place; its quantizers must be fitted.
        teacher: the float model that the student was made from.
        images: (N, 3, H, W).
        options: see `ReconstructOptions`.
        run: keeps finished units, shares batches or units over the processes.

    Raises:
        ValueError: the quantizers are not fitted; the loss is not finite, at every attempted learning rate.
    """
    options, run = options or ReconstructOptions(), run or Run()
    require_fitted(student, "reconstruct")
    images = images.cpu()  # cached activations are in host memory
    training_images, held_out_images = hold_out(images) if options.guarded else (images, images[:0])
    validation = HeldOutValidation(teacher, held_out_images, seed=options.seed) if options.guarded else None
    losses = OBJECTIVES[options.objective](teacher, training_images)
    pairs = list(zip(units(student), units(teacher), strict=True))
    names = [unit.name for unit, _ in pairs if has_weights(unit)]
    trained_here = run.share(run.missing(names)) if options.independent else names
    batch_run = Run() if options.independent else run_for_batches(run, min(options.batch_size, len(training_images)))
    with run.progress("reconstruct", total=len(trained_here) * options.iterations) as bar:
        rng = torch.Generator().manual_seed(options.seed)
        trainer = UnitTrainer(options, device_of(student), batch_run, rng, bar)
        chain = Chain(student, pairs, training_images, losses, validation, trainer, run)
        undone = chain.train_independently() if options.independent else chain.train_in_order()
    if undone:
        logger.info(f"reconstruct: {undone} of {len(names)} units put back, worse on held-out images")


def has_weights(unit: Unit) -> bool:
    """Whether a unit of a student has quantized layers."""
    return any(weighted_modules(owner) for owner in unit.modules)


@dataclass(frozen=True)
class Chain:
    """The units of student and teacher, and the state that their training shares."""

    student: nn.Module
    pairs: list[tuple[Unit, Unit]]
    images: Tensor
    losses: Callable[[int], Loss]
    validation: HeldOutValidation | None
    trainer: "UnitTrainer"
    run: Run

    def forward(self, unit: Unit, activations: Tensor) -> Tensor:
        """The output of a unit for all images, on the CPU."""
        return forward_in_batches(unit.forward, activations, self.trainer.device, self.trainer.options.batch_size)

    def train_in_order(self) -> int:
        """Train each unit on the outputs of the trained units before it. Returns the number of undone trainings."""
        quantized, real, undone = self.images, self.images, 0
        for position, (unit, float_unit) in enumerate(self.pairs):
            target = self.forward(float_unit, real)
            if has_weights(unit):
                undone += self._train_or_resume(position, quantized, real, target)
            real = target  # before the next line, so that memory holds one copy less while it runs
            quantized = self.forward(unit, quantized)
        return undone

    def _train_or_resume(self, position: int, quantized: Tensor, real: Tensor, target: Tensor) -> bool:
        """Train the unit at `position`, unless an earlier start did. Returns whether the training was undone."""
        (unit, _), rng = self.pairs[position], self.trainer.rng
        state = self.run.resume(unit.name)
        if state is None:
            worse = self._train_unit(position, quantized, real, target)
            state = self.run.agree(state_of(unit.modules)) | {"rng": rng.get_state(), "worse": torch.tensor(worse)}
            self.run.checkpoint(unit.name, state)
        else:
            self.trainer.bar.skip(self.trainer.options.iterations)
        rng.set_state(state.pop("rng"))
        worse = bool(state.pop("worse"))
        restore_state(unit.modules, state)
        return worse

    def _train_unit(self, position: int, quantized: Tensor, real: Tensor, target: Tensor) -> bool:
        """Train the unit at `position`. Returns whether the training was undone, since the error on held-out images increased."""
        unit, _ = self.pairs[position]
        if self.validation:
            self.validation.start(self.student)
        with trainable(unit.modules) as parameters:
            start = self.trainer.train(unit, parameters, self.losses(position), quantized, real, target)
            worse = self.validation is not None and not self.validation.accepts(self.student)
            if worse:
                parameters.restore(start)
        return worse

    def train_independently(self) -> int:
        """Train each unit on float activations, in one of the processes; then validate the units one by one.

        Returns the number of undone trainings.
        """
        positions = {unit.name: position for position, (unit, _) in enumerate(self.pairs) if has_weights(unit)}
        trained_units = [self.pairs[position][0] for position in positions.values()]
        before = {unit.name: state_of(unit.modules) for unit in trained_units}
        real, reached = self.images, 0  # the float input of the unit at position `reached`

        def compute(name: str) -> Tensors:
            nonlocal real, reached
            unit, float_unit = self.pairs[positions[name]]
            while reached < positions[name]:
                real, reached = self.forward(self.pairs[reached][1], real), reached + 1
            target = self.forward(float_unit, real)
            options = replace(self.trainer.options, keep=0.0)
            rng = generator(options.seed, "reconstruct", positions[name])
            trainer = replace(self.trainer, options=options, rng=rng)
            with trainable(unit.modules) as parameters:
                trainer.train(unit, parameters, self.losses(positions[name]), real, real, target)
            trained = {key: value.cpu() for key, value in state_of(unit.modules).items()}  # it is sent to the other processes
            restore_state(unit.modules, before[name])
            return trained

        states, undone = self.run.compute_missing(positions, compute), 0
        if self.validation:
            self.validation.start(self.student)
        for unit, state in zip(trained_units, states, strict=True):
            restore_state(unit.modules, state)
            if self.validation and not self.validation.accepts(self.student):
                restore_state(unit.modules, before[unit.name])
                undone += 1
        return undone


@dataclass(frozen=True)
class UnitTrainer:
    """Trains one unit at a time."""

    options: ReconstructOptions
    device: torch.device
    run: Run  # shares the images of a batch
    rng: torch.Generator
    bar: Progress

    def train(
        self, unit: Unit, parameters: TrainableParameters, loss_of: Loss, quantized: Tensor, real: Tensor, target: Tensor
    ) -> list[Tensor]:
        """Train one unit; if its loss is not finite, again at a smaller learning rate. Returns the initial parameters."""
        start = parameters.snapshot()

        def attempt(lr_factor: float) -> None:
            batches = self._batches(quantized, real, target)
            with _rounding(unit, ROUNDINGS[self.options.rounding]) as soft:
                self._minimize(unit, parameters, loss_of, batches, soft, lr_factor)
            parameters.require_finite(f"reconstruct: {unit.name}")

        retry_with_smaller_lr(attempt, undo=lambda: parameters.restore(start))
        return start

    def _minimize(
        self,
        unit: Unit,
        parameters: TrainableParameters,
        loss_of: Loss,
        batches: Iterator[tuple[Tensor, Tensor]],
        soft: list[SoftRounding],
        lr_factor: float,
    ) -> None:
        groups = parameters.groups(lr_factor * self.options.lr, lr_factor * self.options.scale_lr)
        if soft:
            groups.append({"params": [rounding.logit for rounding in soft], "lr": lr_factor * GATE_LR})
        optimizer = AdamWarmupCosine(groups, self.options.iterations)
        for step, (mixed, target) in enumerate(batches):
            with torch.enable_grad():
                loss = total_loss(loss_of(unit.forward(mixed), target), len(target), self.run)
                done = step / self.options.iterations
                if done >= FREE_SHARE:
                    first, last = SHARPNESS
                    sharpness = last + (first - last) * (1 - done) / (1 - FREE_SHARE)
                    regularizer = sum(ROUNDING_WEIGHT * rounding.regularizer(sharpness) for rounding in soft)
                    loss = loss + (regularizer if self.run.index == 0 else 0.0 * regularizer)  # once, as it has no images
            value = finite(self.run.total(loss.detach().clone()), f"reconstruct: the loss of {unit.name}", step)
            loss.backward()
            sum_gradients(optimizer.parameters, self.run)
            optimizer.step()
            self.bar.advance(loss=value)

    def _batches(self, quantized: Tensor, real: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (input, target) of this process's share of each batch, on the device.

        An input element is quantized with probability `keep`. Every process draws the same random numbers, for the whole batch.
        """
        for _ in range(self.options.iterations):
            batch = torch.randperm(len(target), generator=self.rng)[: self.options.batch_size]
            uniform = self.run.share(torch.rand(len(batch), *quantized.shape[1:], generator=self.rng))
            batch = self.run.share(batch)
            mixed = torch.where(uniform < self.options.keep, quantized[batch], real[batch])
            yield mixed.to(self.device), target[batch].to(self.device)


@contextmanager
def _rounding(unit: Unit, gates: bool) -> Iterator[list[SoftRounding]]:
    if not gates:
        yield []
        return
    with learned_rounding([module for owner in unit.modules for module in weighted_modules(owner)]) as soft:
        yield soft
