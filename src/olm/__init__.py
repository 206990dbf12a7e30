"""olm: an async actor-system inference server for local language models.

The version lives here and nothing else is imported, so that `olm --version` stays instant. Use
`olm.embed.open_olm` to run the actors inside your own trio program, `olm.actors.runtime` for the actor
runtime alone, and the `olm` command for everything else.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
