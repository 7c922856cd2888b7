"""Checkpoints on disk: one file a layout, strict loading, saving, and the golden cases."""

from deepgen.checkpoints.defaults import GenerationDefaults
from deepgen.checkpoints.load import load_model, open_checkpoint
from deepgen.checkpoints.save import save_model

__all__ = ["GenerationDefaults", "load_model", "open_checkpoint", "save_model"]
