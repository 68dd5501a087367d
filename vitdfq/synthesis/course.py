"""What a generator's training remembers, so that it goes on where it was killed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitdfq.quantization.descent import moments, restore_moments
from vitdfq.quantization.modules import restore_state, state_of
from vitdfq.synthesis.conditional import ConditionalGenerator
from vitdfq.synthesis.lessons import Pupil
from vitdfq.synthesis.networks import Networks

State = dict[str, Tensor]


@dataclass(frozen=True)
class Course:
    """Everything that a step of training changes. Draws are not among it: every step has streams of its own."""

    painter: ConditionalGenerator
    optimizer: torch.optim.Optimizer
    networks: Networks
    pupil: Pupil | None

    def state(self, done: int) -> State:
        """What is needed to go on after `done` steps."""
        kept = {"painter": state_of([self.painter]), "optimizer": moments(self.optimizer), "networks": self.networks.state()}
        if self.pupil is not None:
            kept["pupil"] = self.pupil.state()
        return {"done": torch.tensor(done)} | {
            f"{part}/{name}": value for part, held in kept.items() for name, value in held.items()
        }

    def restore(self, state: State) -> int:
        """Put everything back; returns how many steps are done."""
        restore_state([self.painter], _part(state, "painter"))
        restore_moments(self.optimizer, _part(state, "optimizer"))
        self.networks.restore(_part(state, "networks"))
        if self.pupil is not None:
            self.pupil.restore(_part(state, "pupil"))
        return int(state["done"])


def _part(state: State, part: str) -> State:
    return {name.removeprefix(f"{part}/"): value for name, value in state.items() if name.startswith(f"{part}/")}
