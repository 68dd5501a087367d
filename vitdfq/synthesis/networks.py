"""The networks a loss may run: the teacher, the teacher with something changed for one pass, and a fake-quantized student."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from vitdfq.models import record
from vitdfq.synthesis.context import Pass
from vitdfq.synthesis.students import make_student, refresh

PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16}


class Networks:
    """Runs a frozen teacher, and students of it, and listens to the submodules that the losses named.

    A context manager: the hooks are gone when the block ends.
    """

    def __init__(self, teacher: nn.Module, names: Iterable[str], precision: str = "float32") -> None:
        self.teacher = teacher
        self.names = list(dict.fromkeys(names))
        self.dtype = PRECISIONS[precision]
        self._students: dict[str, nn.Module] = {}
        self._refreshed: dict[str, int] = {}
        self._adopted: Any = None
        self._recorded: dict[nn.Module, dict[str, Tensor]] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Networks":
        self._listen(self.teacher)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._open.close()

    def run(self, images: Tensor, network: nn.Module | None = None) -> Pass:
        """One pass over (B, 3, H, W), by default of the teacher, with gradients as they stand."""
        model: Any = self.teacher if network is None else network
        with torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None):
            tokens = model.forward_features(images)
            features, logits = model.forward_head(tokens, pre_logits=True), model.forward_head(tokens)
        recorded = {name: value.to(images.dtype) for name, value in self._recorded[model].items()}  # not autocast's
        return Pass(images, logits.to(images.dtype), features.to(images.dtype), recorded)

    def student(self, bits: str, images: Tensor, step: int, refresh_every: int) -> nn.Module:
        """A fake-quantized copy of the teacher whose ranges were fitted on `images` at most `refresh_every` steps ago.

        Where a student was adopted, it is that one, as it is.

        Raises:
            ValueError: the adopted student has other bits.
        """
        if self._adopted is not None:
            own = self._adopted.vitdfq["quantize"]["bits"]
            if own != bits:
                raise ValueError(f"a loss compares with a student of bits {bits!r}, but the one that learns here has {own!r}")
            return self._adopted
        if bits not in self._students:
            self._students[bits] = make_student(self.teacher, bits)
            self._listen(self._students[bits])
        student, last = self._students[bits], self._refreshed.get(bits)
        if last is None or step // refresh_every != last // refresh_every or step < last:
            refresh(student, images)
            self._refreshed[bits] = step
        return student

    def adopt(self, student: nn.Module) -> None:
        """Let every loss that asks for a student see this one: whoever hands it in fits its ranges and may teach it."""
        self._listen(student)
        self._adopted = student

    def _listen(self, model: nn.Module) -> None:
        self._recorded[model] = self._open.enter_context(record(model, self.names))
