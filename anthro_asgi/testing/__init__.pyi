"""The public names, for type checkers: `__init__.py` imports each when it is first used."""

from .app import ScriptedApp
from .driver import Driver
from .engine import ScriptedEngine
from .in_process import InProcessApp
from .loopback import LoopbackServer
from .messages import InProcessMessages, MessagesServer
from .replies import Cut, Reply, Stall, ToolCall, error
from .requests import SeenRequest, matching

__all__ = [
    "Cut",
    "Driver",
    "InProcessApp",
    "InProcessMessages",
    "LoopbackServer",
    "MessagesServer",
    "Reply",
    "ScriptedApp",
    "ScriptedEngine",
    "SeenRequest",
    "Stall",
    "ToolCall",
    "error",
    "matching",
]
