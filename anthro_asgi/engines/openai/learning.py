"""Remembers what an engine has shown, counts it and logs it."""

import asyncio
import logging
from typing import Any

from ..base import Observer
from .learned import LearnedDialects

_log = logging.getLogger(__name__)


def remember(
    learned: LearnedDialects, model: str, changes: dict[str, Any], observe: Observer, name: str | None
) -> None:
    """Store `changes` to the dialect of `model` in `learned`. Counts and logs those that are new.

    `name` is that of the engine, where there are several.
    """
    for field in learned.learn(model, changes, asyncio.get_running_loop().time()):
        observe("learned", field)
        value = changes[field]
        shown = ",".join(sorted(value)) if isinstance(value, frozenset) else value
        values = {"field": field, "value": shown, "engine": name}
        _log.info("engine_dialect_learned field=%(field)s value=%(value)s", values)
