"""The model store on disk, in Ollama's layout: names, blobs, manifests, what they add up to, and their upkeep.

Everything here is blocking and free of trio; the actor over it is `olm.actors.store`. No network, no HTTP.
"""

__all__: list[str] = []
