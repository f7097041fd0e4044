"""The ASGI driver under its former name, for tests that are still being written on other branches."""

from anthro_asgi.testing.driver import App, Driver, LifespanFailed, Message, Receive, Response, Send, Stuck

__all__ = ["App", "Driver", "LifespanFailed", "Message", "Receive", "Response", "Send", "Stuck"]
