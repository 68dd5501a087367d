"""The networks a loss may run: the teacher, the teacher with something changed for one pass, and a fake-quantized student."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitdfq.common.precision import PRECISIONS
from vitdfq.common.tensor_dicts import merge_prefixed, take_prefixed
from vitdfq.models import record
from vitdfq.quantization.modules import activation_quantizers, restore_state, state_of
from vitdfq.synthesis.objective.context import Pass, SynthContext
from vitdfq.synthesis.objective.students import make_student, refresh
from vitdfq.synthesis.objective.token_pruning import only_patches

DEFAULT_BITS = "w4a4"


class FeaturesAndLogits(nn.Module):
    """What a pass keeps of a timm model, as a module: `functional_call` takes nothing else."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> (B, D) and (B, C)"""
        tokens = self.model.forward_features(images)
        return self.model.forward_head(tokens, pre_logits=True), self.model.forward_head(tokens)


class Networks:
    """Runs a frozen teacher, and students of it, and listens to the submodules that the losses named.

    A context manager: the hooks are gone when the block ends.
    """

    def __init__(self, teacher: nn.Module, names: Iterable[str], precision: str = "float32") -> None:
        self.teacher = teacher
        self.names = list(dict.fromkeys(names))
        self.dtype = PRECISIONS[precision]
        self.kept: Tensor | None = None  # (B, k) the patches to show, see sparsity.py; None: all
        self._students: dict[str, nn.Module] = {}
        self._asked: dict[str, int] = {}  # the step at which each student was last asked for
        self._adopted: Any = None
        self._recorded: dict[nn.Module, dict[str, Tensor]] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Networks":
        self._listen(self.teacher)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._open.close()

    def run(self, images: Tensor, network: nn.Module | None = None, parameters: Mapping[str, Tensor] | None = None) -> Pass:
        """One pass over (B, 3, H, W), by default of the teacher, with gradients as they stand.

        `parameters` stand in for the network's own parameters and buffers of these names, which stay as they are.
        """
        model = self.teacher if network is None else network
        stand_ins = {f"model.{name}": value for name, value in (parameters or {}).items()}
        autocast = torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None)
        with autocast, only_patches(model, self.kept):
            features, logits = functional_call(FeaturesAndLogits(model), stand_ins, (images,))
        recorded = {name: value.to(images.dtype) for name, value in self._recorded[model].items()}  # not autocast's
        return Pass(images, logits.to(images.dtype), features.to(images.dtype), recorded)

    @contextmanager
    def all_patches(self) -> Iterator[None]:
        """Within the block, runs show every patch: for images that are not the ones `kept` is about."""
        kept, self.kept = self.kept, None
        try:
            yield
        finally:
            self.kept = kept

    def student(self, bits: str | None, images: Tensor, step: int, refresh_every: int) -> nn.Module:
        """A fake-quantized copy of the teacher whose ranges were fitted on `images` at most `refresh_every` steps ago.

        Where a student was adopted, it is that one, as it is. `bits` None takes its bits, or "w4a4" where none was adopted.

        Raises:
            ValueError: the adopted student has other bits.
        """
        if self._adopted is not None:
            own = self._adopted.vitdfq["quantize"]["bits"]
            if bits not in (None, own):
                raise ValueError(f"a loss compares with a student of bits {bits!r}, but the one that learns here has {own!r}")
            return self._adopted
        bits = bits or DEFAULT_BITS
        if bits not in self._students:
            self._make_student(bits)
        student, last = self._students[bits], self._asked.get(bits)
        self._asked[bits] = step
        if last is None or step // refresh_every != last // refresh_every:
            refresh(student, images)
        return student

    def begin(self) -> None:
        """Forget for which images students were fitted: others are coming."""
        self._asked.clear()

    def state(self) -> dict[str, Tensor]:
        """The ranges of students that losses asked for, and when they did."""
        return merge_prefixed(
            **{
                bits: {"asked": torch.tensor(step)} | state_of(activation_quantizers(self._students[bits]))
                for bits, step in self._asked.items()
            }
        )

    def restore(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        for bits in [name.removesuffix("/asked") for name in state if name.endswith("/asked")]:
            self._make_student(bits)
            own = take_prefixed(state, bits)
            self._asked[bits] = int(own.pop("asked"))
            restore_state(activation_quantizers(self._students[bits]), own)

    def adopt(self, student: nn.Module) -> None:
        """Let every loss that asks for a student see this one: whoever hands it in fits its ranges and may teach it."""
        self._listen(student)
        self._adopted = student

    def _make_student(self, bits: str) -> None:
        self._students[bits] = make_student(self.teacher, bits)
        self._listen(self._students[bits])

    def _listen(self, model: nn.Module) -> None:
        self._recorded[model] = self._open.enter_context(record(model, self.names))


def student_pass(ctx: SynthContext, networks: Networks, *, bits: str | None = None, refresh_every: int = 100) -> list[Pass]:
    """Run a student on the images that the teacher saw, with gradients to them (straight through the rounding).

    Its ranges are fitted to these images every `refresh_every` steps, so what it says of an image depends on the batch. A run of
    100 steps fits them once: every 10 steps did not help there (zoo:deit, W3A3, 32 images, KL to the teacher of three seeds: AGM
    .0534 once, .0572 every 10; V2-style .0608 and .0609).
    `bits` are by default those of the student that learns in turn with a generator, "w4a4" where none does.

    Raises:
        ValueError: unknown bits, or `refresh_every` below 1.
    """
    if refresh_every < 1:
        raise ValueError(f"refresh_every is a number of steps, at least 1, got {refresh_every}")
    student = networks.student(bits, ctx.images.detach(), ctx.step, refresh_every)
    return [networks.run(ctx.images, student)]
