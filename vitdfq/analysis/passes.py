"""Passes of a student and its teacher over the held-out images; what does not change from pass to pass is computed once."""

from typing import Any

from torch import Tensor, nn

from vitdfq.analysis.errors import Scores, output_scores
from vitdfq.analysis.switches import Switches
from vitdfq.calibration.cached_activations import device_of, forward_in_batches
from vitdfq.models import gives, units
from vitdfq.models.block_maps import in_one

BATCH_SIZE = 32  # images in one pass


class HeldOutPasses:
    """Compares a student, some of whose quantizers are on, with its teacher on held-out images.

    Host memory holds the input of every unit for all images, twice: of the float function, and of the quantized student. A pass
    begins at the first unit that differs from one of the two.

    Args:
        switches: of the student. They are left all on.
        teacher: the float model that the student was made from.
        images: (N, 3, H, W), on the CPU, not those of the calibration.
    """

    def __init__(self, switches: Switches, teacher: nn.Module, images: Tensor) -> None:
        self.switches, self.images, self.gives = switches, images, gives(teacher)
        self.units, self.device = units(switches.student), device_of(teacher)
        self.unit_of = unit_of_site(switches.student)
        self.target = self._run(units(teacher), images)
        switches.only([])
        self.float_inputs = self._inputs()
        switches.only(switches.parts)
        self.quantized_inputs = self._inputs()

    def scores(self, outputs: Tensor) -> Scores:
        """Compare outputs with the teacher's; see `output_scores`."""
        return output_scores(outputs, self.target, self.gives)

    def outputs_alone(self, first_unit: int) -> Tensor:
        """The outputs (N, ...) of the student as it is switched now; all units before `first_unit` are in float."""
        return self._run(self.units[first_unit:], self.float_inputs[first_unit])

    def outputs_of_rest(self, first_unit: int) -> Tensor:
        """The outputs (N, ...) of the student as it is switched now; all units before `first_unit` are quantized."""
        return self._run(self.units[first_unit:], self.quantized_inputs[first_unit])

    def unit_output(self, unit: int) -> Tensor:
        """The output (N, ...) of one unit as it is switched now, for the input that it has in the float function."""
        return self._run(self.units[unit : unit + 1], self.float_inputs[unit])

    def _inputs(self) -> list[Tensor]:
        inputs = [self.images]
        for unit in self.units[:-1]:
            inputs.append(forward_in_batches(unit.forward, inputs[-1], self.device, BATCH_SIZE))
        return inputs

    def _run(self, chain: list[Any], x: Tensor) -> Tensor:
        def forward(batch: Tensor) -> Tensor:
            for unit in chain:
                batch = unit.forward(batch)
            return in_one(batch)

        return forward_in_batches(forward, x, self.device, BATCH_SIZE)


def unit_of_site(student: nn.Module) -> dict[str, int]:
    """Return the index of the unit that each submodule belongs to; 0 for one in no unit, so that the whole chain is run."""
    owner = {part: index for index, unit in enumerate(units(student)) for module in unit.modules for part in module.modules()}
    return {name: owner.get(part, 0) for name, part in student.named_modules()}
