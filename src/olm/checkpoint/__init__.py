"""Checkpoints as people have them: safetensors and PyTorch files, read without running anything that is in them."""

__all__: list[str] = []
