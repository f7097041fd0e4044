"""The public names, for type checkers: `__init__.py` imports each when it is first used."""

from .engines.base import BaseEngine, Engine, ModelInfo
from .engines.functions import as_engine
from .engines.openai.chat_request import as_chat
from .factory import create_app
from .http.answer import Answer
from .http.answer_loop import ToolFailed
from .http.messages_app import MessagesApp
from .server.garbage_collector import GarbageCollector
from .wire.deltas import Batch, Block, Delta, Finish, Signature, Thinking, ToolJson, ToolStart, Usage, deltas_of
from .wire.errors import (
    ApiError,
    BadUpstream,
    ContextTooLong,
    EngineFailed,
    InternalError,
    InvalidRequest,
    NotFound,
    Overloaded,
    RateLimited,
    UpstreamTimeout,
)
from .wire.request import MessagesRequest, parse_request
from .wire.request_policy import Rules

__all__ = [
    "Answer",
    "ApiError",
    "BadUpstream",
    "BaseEngine",
    "Batch",
    "Block",
    "ContextTooLong",
    "Delta",
    "Engine",
    "EngineFailed",
    "Finish",
    "GarbageCollector",
    "InternalError",
    "InvalidRequest",
    "MessagesApp",
    "MessagesRequest",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "RateLimited",
    "Rules",
    "Signature",
    "Thinking",
    "ToolFailed",
    "ToolJson",
    "ToolStart",
    "UpstreamTimeout",
    "Usage",
    "as_chat",
    "as_engine",
    "create_app",
    "deltas_of",
    "parse_request",
]
