"""The HTTP API: Ollama's native one now, other dialects beside it later. Start at `app.create_app` and `serve.serve`."""
