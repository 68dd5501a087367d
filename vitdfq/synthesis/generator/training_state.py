"""The state of a generator's training, so that an interrupted training goes on."""

from dataclasses import dataclass

import torch

from vitdfq.common.tensor_dicts import merge_prefixed, take_prefixed
from vitdfq.quantization.modules import restore_state, state_of
from vitdfq.runtime.run import Tensors
from vitdfq.synthesis.generator.network import ConditionalGenerator
from vitdfq.synthesis.generator.student_training import StudentTrainer
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.training.optimizer import optimizer_state, restore_optimizer


@dataclass
class TrainingState:
    """Everything that a step of training changes. Random draws are no part of it: every step has streams of its own."""

    generator: ConditionalGenerator
    optimizer: torch.optim.Optimizer
    networks: Networks
    student_trainer: StudentTrainer | None
    lr_factor: float = 1.0  # share of the rates

    def state(self, done: int) -> Tensors:
        """What is needed to go on after `done` steps."""
        return {"done": torch.tensor(done), "lr_factor": torch.tensor(self.lr_factor)} | merge_prefixed(
            generator=state_of([self.generator]),
            optimizer=optimizer_state(self.optimizer),
            networks=self.networks.state(),
            student_trainer={} if self.student_trainer is None else self.student_trainer.state(),
        )

    def restore(self, state: Tensors) -> int:
        """Put everything back; returns how many steps are done."""
        restore_state([self.generator], take_prefixed(state, "generator"))
        restore_optimizer(self.optimizer, take_prefixed(state, "optimizer"))
        self.networks.begin()
        self.networks.restore(take_prefixed(state, "networks"))
        self.lr_factor = state["lr_factor"].item()
        if self.student_trainer is not None:
            self.student_trainer.restore(take_prefixed(state, "student_trainer"), self.lr_factor)
        return int(state["done"])

    def halve_rates(self) -> None:
        """Go on at half the rates."""
        self.lr_factor /= 2
        if self.student_trainer is not None:
            self.student_trainer.halve_rates()
