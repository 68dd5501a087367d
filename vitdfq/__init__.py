"""vitdfq: quantize vision transformers without data.

    load_teacher   a timm model, frozen, its attention opened          vitdfq/models/
    synthesize     calibration images from the model alone            vitdfq/synthesis/
    prepare        the same function, easier to quantize              vitdfq/preparation/
    quantize       a copy with quantizers in place                    vitdfq/quantization/
    calibrate      scales and weights set on the synthetic images     vitdfq/calibration/
    evaluate       KL and agreement with the teacher, top-1           vitdfq/evaluation/
    to_integer     a copy that multiplies integers                    vitdfq/quantization/integer/
    save, load     the packed checkpoint                              vitdfq/checkpoint/
    analyze        what each site costs, without labels; bits by layer     vitdfq/analysis/
    export         ONNX, checked                                      vitdfq/onnx/
    push           the checkpoint, on the Hugging Face Hub            vitdfq/hub/
    run            all of it, as a recipe says                        vitdfq/workflow/

Names are imported on first use, so that `import vitdfq` is cheap. The library prints nothing: its messages go to
`logging.getLogger("vitdfq")`, its bars appear on the command line alone.
"""

import importlib
import logging
from typing import TYPE_CHECKING

from vitdfq.common.version import __version__

_HOMES = {
    "load_teacher": "vitdfq.models",
    "synthesize": "vitdfq.synthesis",
    "prepare": "vitdfq.preparation",
    "quantize": "vitdfq.quantization",
    "calibrate": "vitdfq.calibration",
    "evaluate": "vitdfq.evaluation",
    "to_integer": "vitdfq.quantization.integer",
    "analyze": "vitdfq.analysis",
    "save": "vitdfq.checkpoint",
    "load": "vitdfq.checkpoint",
    "export": "vitdfq.onnx",
    "push": "vitdfq.hub.publish",
    "load_recipe": "vitdfq.recipe",
    "run": "vitdfq.workflow.run",
}
__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from vitdfq.analysis import analyze
    from vitdfq.calibration import calibrate
    from vitdfq.checkpoint import load, save
    from vitdfq.evaluation import evaluate
    from vitdfq.hub.publish import push
    from vitdfq.models import load_teacher
    from vitdfq.onnx import export
    from vitdfq.preparation import prepare
    from vitdfq.quantization import quantize
    from vitdfq.quantization.integer import to_integer
    from vitdfq.recipe import load_recipe
    from vitdfq.synthesis import synthesize
    from vitdfq.workflow.run import run


logging.getLogger(__name__).addHandler(logging.NullHandler())  # silent unless the program that uses it sets up logging


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module 'vitdfq' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value
