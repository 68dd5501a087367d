"""The packed checkpoint: a folder of config.json and model.safetensors."""

from vitdfq.checkpoint.save_load import load, save

__all__ = ["load", "save"]
