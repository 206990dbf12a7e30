"""Checkpoints as people have them: safetensors and PyTorch files, read without running anything that is in them."""

from olm.checkpoint.folder import OpenCheckpoint, open_checkpoint, open_files
from olm.checkpoint.types import DTYPES, Checkpoint, RowReader, Source

__all__ = [
    "DTYPES",
    "Checkpoint",
    "OpenCheckpoint",
    "RowReader",
    "Source",
    "open_checkpoint",
    "open_files",
]
