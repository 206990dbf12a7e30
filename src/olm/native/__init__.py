"""The native side: the engine's bindings (`lib`, `handles`, `engine`, `chat`), its worker process, and the choice of devices.

Nothing is imported here: the daemon uses `wire` and `devices` without ever loading the engine.
"""
