"""The tests of Anthropic's SDK for Python, from its source distribution, against this service instead of their mock."""
