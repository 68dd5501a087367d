"""A quantized student that learns from the teacher in turn with the generator (GDFQ's loop, arXiv 2003.03603)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vitdfq.common.tensor_dicts import merge_prefixed, take_prefixed
from vitdfq.quantization.modules import restore_state, state_of
from vitdfq.synthesis.generator.mixup import interpolate
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.synthesis.objective.students import refresh
from vitdfq.synthesis.seeds import generator
from vitdfq.training.optimizer import AdamWarmupCosine
from vitdfq.training.trainable import TrainableParameters, divergence, finite


@dataclass(frozen=True)
class StudentTrainingConfig:
    """How a student learns; `Method.student_training`.

    Rates are relative to each layer's quantization step (see `quantization.learning`): .001 of a 4-bit step of a ViT's weights
    is about 2e-5, the size of the rates that papers give.
    """

    after: float = 0.1  # share of the run before the first: a generator's first images teach nothing
    lr: float = 1e-3  # of weights, in quantization steps
    scale_lr: float = 1e-4  # of activation scales, relative to each
    temperature: float = 1.0  # GDFQ takes 20 and weighs the divergence by its square, as here
    interpolate: float = 0.0  # share of the images shown that are mixtures of two (AGM-style: .5)
    refresh_every: int = 20  # steps between two fits of the ranges in the first half of the run; later they only learn


class StudentTrainer:
    """A student in its lessons. Its parameters take gradients for as long as `trainable` is open around it."""

    def __init__(
        self,
        student: nn.Module,
        trainables: TrainableParameters,
        lessons: StudentTrainingConfig,
        steps: int,
        seed: int,
        fitted: bool,
    ) -> None:
        self.student, self.lessons, self.steps, self.seed, self.fitted = student, lessons, steps, seed, fitted
        self.first = math.ceil(lessons.after * steps)
        self.trainables, self.descent, self.pace = trainables, None, 1.0

    def look(self, images: Tensor, step: int) -> None:
        """FitHook the ranges to images (B, 3, H, W) where it is time; a student that came with ranges keeps them."""
        due = step == 0 or (step < self.steps / 2 and step % self.lessons.refresh_every == 0)
        if due and not self.fitted:
            refresh(self.student, images.detach())

    def learn(self, networks: Networks, images: Tensor, logits: Tensor, step: int) -> dict[str, float]:
        """Take one step towards the teacher's logits (B, C) on images (B, 3, H, W)."""
        if step < self.first:
            return {}
        if self.descent is None:  # rates are relative to scales, which the first look has set
            self.descent = self._descent()
        images, logits = images.detach(), logits.detach()
        if self.lessons.interpolate:
            images = interpolate(images, generator(self.seed, "interpolate", step), probability=self.lessons.interpolate)
            with torch.no_grad():
                logits = networks.run(images).logits  # the teacher's answer to the mixture, never a mixture of answers
        loss = divergence(networks.run(images, self.student).logits, logits, self.lessons.temperature)
        value = finite(loss, "lessons: the student's divergence", step)
        loss.backward()
        self.descent.step()
        return {"student": value}

    def state(self) -> dict[str, Tensor]:
        """What is needed to go on from here."""
        lessons = {} if self.descent is None else self.descent.state()
        return merge_prefixed(student=state_of([self.student])) | lessons

    def restore(self, state: dict[str, Tensor], pace: float) -> None:
        """Go on where `state` was taken, at this share of the rates."""
        restore_state([self.student], take_prefixed(state, "student"))
        self.descent, self.pace = None, pace
        if "done" in state:
            self.descent = self._descent()
            self.descent.restore(state)

    def slower(self) -> None:
        """Go on at half the rates."""
        self.pace /= 2
        if self.descent is not None:
            self.descent.peaks = [peak / 2 for peak in self.descent.peaks]

    def _descent(self) -> AdamWarmupCosine:
        groups = self.trainables.groups(self.pace * self.lessons.lr, self.pace * self.lessons.scale_lr)
        return AdamWarmupCosine(groups, self.steps - self.first, betas=(0.9, 0.99))
