"""The commands of `anthro-asgi`: serve, check, health and simulate-openai."""
