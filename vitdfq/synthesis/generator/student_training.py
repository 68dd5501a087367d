"""A quantized student that is trained towards the teacher in turn with the generator (GDFQ's loop, arXiv 2003.03603)."""

import math

import torch
from torch import Tensor, nn

from vitdfq.common.tensor_dicts import merge_prefixed, take_prefixed
from vitdfq.quantization.modules import restore_state, state_of
from vitdfq.runtime.run import Tensors
from vitdfq.synthesis.generator.mixup import interpolate
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.students import refresh
from vitdfq.synthesis.presets import StudentTrainingConfig
from vitdfq.synthesis.seeds import generator
from vitdfq.training.optimizer import AdamWarmupCosine
from vitdfq.training.output_distance import relative_error
from vitdfq.training.trainable import TrainableParameters, divergence, finite


class StudentTrainer:
    """Trains a student. Its parameters receive gradients for as long as `trainable` is open around it."""

    def __init__(
        self,
        student: nn.Module,
        parameters: TrainableParameters,
        config: StudentTrainingConfig,
        steps: int,
        seed: int,
        fitted: bool,
    ) -> None:
        self.student, self.config, self.steps, self.seed, self.fitted = student, config, steps, seed, fitted
        self.first = math.ceil(config.after * steps)
        self.parameters, self.lr_factor = parameters, 1.0
        self.optimizer: AdamWarmupCosine | None = None  # rates are relative to scales, which the first fit sets

    def fit_ranges(self, images: Tensor, step: int) -> None:
        """Fit the ranges to images (B, 3, H, W) at the steps that do so; a student that came with ranges keeps them."""
        due = step == 0 or (step < self.steps / 2 and step % self.config.refresh_every == 0)
        if due and not self.fitted:
            refresh(self.student, images.detach())

    def train_step(self, networks: Networks, images: Tensor, outputs: Tensor, step: int) -> dict[str, float]:
        """Take one step towards the teacher's outputs (B, C) on images (B, 3, H, W); returns the loss by name.

        The loss is the divergence of the class probabilities, or the relative squared error of features.
        """
        if step < self.first:
            return {}
        if self.optimizer is None:
            self.optimizer = self._new_optimizer()
        images, outputs = images.detach(), outputs.detach()
        if self.config.interpolate:
            images = interpolate(images, generator(self.seed, "interpolate", step), probability=self.config.interpolate)
            with torch.no_grad():
                outputs = networks.run(images).outputs  # the teacher's outputs of the mixture, not a mixture of its outputs
        student = networks.run(images, self.student)
        if student.has_classes:
            loss = divergence(student.outputs, outputs, self.config.temperature)
        else:
            loss = relative_error(student.outputs, outputs)
        value = finite(loss, "the student's distance to the teacher", step)
        loss.backward()
        self.optimizer.step()
        return {"student": value}

    def state(self) -> Tensors:
        """What is needed to go on from here."""
        optimizer = {} if self.optimizer is None else self.optimizer.state()
        return merge_prefixed(student=state_of([self.student])) | optimizer

    def restore(self, state: Tensors, lr_factor: float) -> None:
        """Go on where `state` was taken, at this share of the rates."""
        restore_state([self.student], take_prefixed(state, "student"))
        self.optimizer, self.lr_factor = None, lr_factor
        if "done" in state:
            self.optimizer = self._new_optimizer()
            self.optimizer.restore(state)

    def halve_rates(self) -> None:
        """Go on at half the rates."""
        self.lr_factor /= 2
        if self.optimizer is not None:
            self.optimizer.halve_rates()

    def _new_optimizer(self) -> AdamWarmupCosine:
        groups = self.parameters.groups(self.lr_factor * self.config.lr, self.lr_factor * self.config.scale_lr)
        return AdamWarmupCosine(groups, self.steps - self.first, betas=(0.9, 0.99))
