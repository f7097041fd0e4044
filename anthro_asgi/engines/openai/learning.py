"""Remembers what an engine has shown, counts it and logs it."""

import asyncio
import logging
from typing import Any

from ..base import Observer
from .learned import LearnedDialects

_log = logging.getLogger(__name__)


def remember(learned: LearnedDialects, model: str, changes: dict[str, Any], observe: Observer) -> None:
    """Store `changes` to the dialect of `model` in `learned`. Counts and logs those that are new."""
    for field in learned.learn(model, changes, asyncio.get_running_loop().time()):
        observe("learned", field)
        value = changes[field]
        shown = ",".join(sorted(value)) if isinstance(value, frozenset) else value
        _log.info("engine_dialect_learned field=%(field)s value=%(value)s", {"field": field, "value": shown})
