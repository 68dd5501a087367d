"""Export to ONNX and the check of what was written; onnx, onnxscript and onnxruntime have their home here."""

from vitdfq.onnx.export import export, told

__all__ = ["export", "told"]
