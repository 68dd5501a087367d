"""Export to ONNX, checked with onnxruntime; only this folder imports onnx, onnxscript and onnxruntime."""

from vitdfq.onnx.export import export, summary

__all__ = ["export", "summary"]
