"""What a generator's training remembers, so that it goes on where it was killed."""

from dataclasses import dataclass

import torch

from vitdfq.common.tensor_dicts import Tensors, merge_prefixed, take_prefixed
from vitdfq.quantization.modules import restore_state, state_of
from vitdfq.synthesis.generator.network import ConditionalGenerator
from vitdfq.synthesis.generator.student_training import StudentTrainer
from vitdfq.synthesis.objective.networks import Networks
from vitdfq.training.optimizer import moments, restore_moments


@dataclass
class TrainingState:
    """Everything that a step of training changes. Draws are not among it: every step has streams of its own."""

    painter: ConditionalGenerator
    optimizer: torch.optim.Optimizer
    networks: Networks
    pupil: StudentTrainer | None
    pace: float = 1.0  # share of the rates

    def state(self, done: int) -> Tensors:
        """What is needed to go on after `done` steps."""
        return {"done": torch.tensor(done), "pace": torch.tensor(self.pace)} | merge_prefixed(
            painter=state_of([self.painter]),
            optimizer=moments(self.optimizer),
            networks=self.networks.state(),
            pupil={} if self.pupil is None else self.pupil.state(),
        )

    def restore(self, state: Tensors) -> int:
        """Put everything back; returns how many steps are done."""
        restore_state([self.painter], take_prefixed(state, "painter"))
        self.optimizer.state.clear()
        restore_moments(self.optimizer, take_prefixed(state, "optimizer"))
        self.networks.begin()
        self.networks.restore(take_prefixed(state, "networks"))
        self.pace = state["pace"].item()
        if self.pupil is not None:
            self.pupil.restore(take_prefixed(state, "pupil"), self.pace)
        return int(state["done"])

    def slower(self) -> None:
        """Go on at half the rates."""
        self.pace /= 2
        if self.pupil is not None:
            self.pupil.slower()
