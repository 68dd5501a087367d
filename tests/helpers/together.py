"""Reconstructions of a tiny student by this process, together with those launched with it."""

import sys
from pathlib import Path

import torch
from tiny import make_tiny

from vitdfq.calibration import STEPS
from vitdfq.calibration.reconstruct import ReconstructOptions
from vitdfq.quantization import quantize
from vitdfq.runtime import distributed
from vitdfq.runtime.progress import show_messages
from vitdfq.runtime.shared_run import SharedRun
from vitdfq.synthesis import synthesize

ITERATIONS, IMAGES, BATCH = 3, 12, 5  # a batch of two processes has unequal shares
CASES = {
    "mse": {},
    "fisher": {"objective": "fisher"},
    "through_rest": {"objective": "through_rest"},
    "adaround": {"rounding": "adaround"},
    "small_batch": {"batch_size": 1},  # too small to be shared
    "independent": {"independent": True},  # units are shared instead
}


def reconstruct_tiny(options: dict) -> dict[str, torch.Tensor]:
    """The student's tensors before and after, and this process's number of images in each step of the first block."""
    teacher = make_tiny("vit")
    images = synthesize(teacher, method="dead_leaves", num_images=IMAGES)
    student = quantize(teacher, bits="w4a4")
    STEPS["observe"].apply(student, teacher, images)
    before = {f"before/{name}": value.clone() for name, value in student.state_dict().items()}
    batch_sizes: list[int] = []

    def record_size(module, args):
        if torch.is_grad_enabled():
            batch_sizes.append(len(args[0]))

    student.blocks[0].register_forward_pre_hook(record_size)
    options = {"iterations": ITERATIONS, "batch_size": BATCH, "guarded": False} | options
    STEPS["reconstruct"].apply(student, teacher, images, ReconstructOptions(**options), run=SharedRun())
    after = {f"after/{name}": value for name, value in student.state_dict().items()}
    return before | after | {"batch_sizes": torch.tensor(batch_sizes)}


if __name__ == "__main__":
    distributed.start()
    show_messages()
    for case, options in CASES.items():
        torch.save(reconstruct_tiny(options), Path(sys.argv[1]) / f"{case}_{distributed.index()}.pt")
