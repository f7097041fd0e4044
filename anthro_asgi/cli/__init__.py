"""The commands of `anthro-asgi`."""
