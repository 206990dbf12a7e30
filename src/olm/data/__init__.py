"""Data files that ship inside the package: the built-in model. No code lives here."""

__all__: list[str] = []
