"""Model registries: how one proves who one is, and how blobs and manifests come out of one.

The protocol is Ollama's dialect of the OCI distribution API (spec/ollama §7). What becomes of the bytes is decided in
`olm.store.partials` and `olm.actors.pull`.
"""

__all__: list[str] = []
