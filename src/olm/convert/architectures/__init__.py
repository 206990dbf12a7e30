"""One small module for each family of models: what is particular to it, and nothing else. `registry` imports them all."""

__all__: list[str] = []
