"""From a checkpoint, or a GGUF, to a GGUF of any type: architectures, metadata, the writer, quantization.

Reading checkpoints is `olm.checkpoint`'s. What needs numpy runs in a child process (`job`), never in the daemon.
"""

__all__: list[str] = []
