"""The networks that a loss may run: the teacher, the teacher with other weights for one pass, and fake-quantized students."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vitdfq.common.precision import PRECISIONS
from vitdfq.common.tensor_dicts import merge_prefixed, take_prefixed
from vitdfq.models import gives, mean_over_tokens, record
from vitdfq.quantization.modules import activation_quantizers, restore_state, state_of
from vitdfq.synthesis.objective.context import Pass, SynthContext
from vitdfq.synthesis.objective.students import make_student, refresh
from vitdfq.synthesis.objective.token_pruning import only_kept_tokens

DEFAULT_BITS = "w4a4"


class FeaturesAndOutputs(nn.Module):
    """The results of a timm model that a pass returns, as a module, because `functional_call` takes modules only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) -> features (B, D) and outputs (B, C); without a head they are the same"""
        tokens = self.model.forward_features(images)
        features = mean_over_tokens(self.model.forward_head(tokens, pre_logits=True))
        return features, self.model.forward_head(tokens) if self.model.num_classes else features


class Networks:
    """Runs a frozen teacher and its students, and records the submodules that the losses listen to.

    A context manager: the recording hooks are removed when the block ends.

    Args:
        teacher: the model; its parameters are not changed.
        names: submodules to record in every pass, see `vitdfq.models.record`.
        precision: a key of `PRECISIONS`, the data type of matrix products.
    """

    def __init__(self, teacher: nn.Module, names: Iterable[str], precision: str = "float32") -> None:
        self.teacher = teacher
        self.names = list(dict.fromkeys(names))
        self.dtype = PRECISIONS[precision]
        self.kept_tokens: Tensor | None = None  # (B, k) indices of the patches in a pass, see token_pruning.py; None: all
        self._students: dict[str, nn.Module] = {}
        self._last_step: dict[str, int] = {}  # bits -> step at which a loss last used the student
        self._adopted: Any = None
        self._recorded: dict[nn.Module, dict[str, Tensor]] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Networks":
        self._listen(self.teacher)
        return self

    def __exit__(self, *raised: Any) -> None:
        self._open.close()

    def run(self, images: Tensor, network: nn.Module | None = None, parameters: Mapping[str, Tensor] | None = None) -> Pass:
        """Run one pass over images (B, 3, H, W) in the current gradient mode.

        Args:
            images: the views.
            network: the teacher (default) or a student of this object.
            parameters: used for this pass in place of the network's parameters and buffers of these names.
        """
        model = self.teacher if network is None else network
        replaced = {f"model.{name}": value for name, value in (parameters or {}).items()}
        autocast = torch.autocast(images.device.type, self.dtype, enabled=self.dtype is not None)
        with autocast, only_kept_tokens(model, self.kept_tokens):
            features, outputs = functional_call(FeaturesAndOutputs(model), replaced, (images,))
        recorded = {name: value.to(images.dtype) for name, value in self._recorded[model].items()}  # not in autocast's type
        has_classes = gives(model) == "classes"
        return Pass(images, outputs.to(images.dtype), features.to(images.dtype), recorded, has_classes=has_classes)

    @contextmanager
    def all_patches(self) -> Iterator[None]:
        """Within the block, passes take all patches: for images other than those that `kept_tokens` belongs to."""
        kept_tokens, self.kept_tokens = self.kept_tokens, None
        try:
            yield
        finally:
            self.kept_tokens = kept_tokens

    def student(self, bits: str | None, images: Tensor, step: int, refresh_every: int) -> nn.Module:
        """Return a fake-quantized copy of the teacher whose ranges were fitted at most `refresh_every` steps ago.

        If a student was adopted, it is returned as it is.

        Args:
            bits: such as "w4a4"; None: those of the adopted student, or `DEFAULT_BITS`.
            images: (B, 3, H, W), to which the ranges are fitted when they are due.
            step: of the run.
            refresh_every: steps between two fits.

        Raises:
            ValueError: the adopted student has other bits.
        """
        if self._adopted is not None:
            adopted_bits = self._adopted.vitdfq["quantize"]["bits"]
            if bits not in (None, adopted_bits):
                raise ValueError(
                    f"a loss compares with a student of bits {bits!r}, but the one that learns here has {adopted_bits!r}"
                )
            return self._adopted
        bits = bits or DEFAULT_BITS
        if bits not in self._students:
            self._make_student(bits)
        student, last = self._students[bits], self._last_step.get(bits)
        self._last_step[bits] = step
        if last is None or step // refresh_every != last // refresh_every:
            refresh(student, images)
        return student

    def begin(self) -> None:
        """Start a new batch of images: the next use of a student fits its ranges anew."""
        self._last_step.clear()

    def state(self) -> dict[str, Tensor]:
        """Return the ranges of the students that losses use, and the steps of their last use."""
        return merge_prefixed(
            **{
                bits: {"last_step": torch.tensor(step)} | state_of(activation_quantizers(self._students[bits]))
                for bits, step in self._last_step.items()
            }
        )

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned."""
        for bits in [name.removesuffix("/last_step") for name in state if name.endswith("/last_step")]:
            self._make_student(bits)
            ranges = take_prefixed(state, bits)
            self._last_step[bits] = int(ranges.pop("last_step"))
            restore_state(activation_quantizers(self._students[bits]), ranges)

    def adopt(self, student: nn.Module) -> None:
        """Make every loss use this student. The caller fits its ranges and may train it."""
        self._listen(student)
        self._adopted = student

    def _make_student(self, bits: str) -> None:
        self._students[bits] = make_student(self.teacher, bits)
        self._listen(self._students[bits])

    def _listen(self, model: nn.Module) -> None:
        self._recorded[model] = self._open.enter_context(record(model, self.names))


def student_pass(ctx: SynthContext, networks: Networks, *, bits: str | None = None, refresh_every: int = 100) -> list[Pass]:
    """Run a student on the teacher's images, with straight-through gradients to them: `Loss.passes` of student losses.

    The student's ranges are fitted to these images every `refresh_every` steps, so its output for an image depends on the
    batch. A run of 100 steps fits them once. Fitting every 10 steps did not help there (zoo:deit, W3A3, 32 images, KL to the
    teacher, three seeds: AGM .0534 once, .0572 every 10; V2-style .0608 and .0609).

    Args:
        ctx: the teacher's pass.
        networks: runs the student.
        bits: by default those of the student trained in turn with a generator, or "w4a4" without one.
        refresh_every: steps between two fits of the ranges.

    Raises:
        ValueError: unknown bits, or `refresh_every` below 1.
    """
    if refresh_every < 1:
        raise ValueError(f"refresh_every is a number of steps, at least 1, got {refresh_every}")
    student = networks.student(bits, ctx.images.detach(), ctx.step, refresh_every)
    return [networks.run(ctx.images, student)]
