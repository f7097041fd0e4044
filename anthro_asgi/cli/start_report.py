"""What `serve` reports when it listens: the log event `started`, and a banner for a terminal.

Both say which engine answers and with which models, where the service listens, who may use it, and with which lines a
client is pointed here. An engine that is not known at the start is reported when it is: `engine_detected`.
"""

import asyncio
import logging
import re
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from typing import Final

from .._native import description
from ..engines.base import BaseEngine, ModelInfo
from ..observability.logs import clean, has_colour, log_event
from ..observability.version import VERSION
from ..settings.options import SIMULATED_BY_DEFAULT, EngineKind, Settings
from .client_setup import claude_code_command, claude_code_lines, client_key, reachable_url, small_window

_LIST_TIMEOUT: Final = 0.5  # seconds for which the start waits for the model list
_LISTED: Final = 20  # models that are named
_KINDS: Final[Mapping[EngineKind, str]] = {
    "simulate": "simulator",
    "upstream": "upstream",
    "engine": "python",
    "model": "model_file",
}


class StartReport:
    """Reports what `engine` serves with these settings. `has_keys`: clients need an API key. `messages`: the
    service speaks the Messages API, so that it has lines for its clients.
    """

    def __init__(
        self,
        engine: BaseEngine,
        settings: Settings,
        *,
        has_keys: bool,
        style: str,
        terminal: bool,
        log_on_terminal: bool = False,
        messages: bool = True,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._has_keys = has_keys
        self._style = style
        self._terminal = terminal
        self._repeats = terminal and log_on_terminal  # the banner and the log would say the same in one place
        self._messages = messages
        self._models: list[ModelInfo] | None = None
        self._reported: tuple[str | None, bool] = (None, False)  # the engine's name, and whether its models were known
        self._addresses: Sequence[str] = ()

    async def started(self, addresses: Sequence[str]) -> str:
        """Log that the service listens at `addresses`. Returns the banner for a terminal, which may be empty.

        Where the log goes to the same terminal, the banner replaces its line, which is then at level debug.
        """
        self._addresses = addresses
        self._models = await self._list_models()
        self._reported = self._state()
        settings = self._settings
        simulated = SIMULATED_BY_DEFAULT if settings.simulated_by_default else None
        log_event(
            "started",
            logging.DEBUG if self._repeats else logging.WARNING if simulated else logging.INFO,
            version=VERSION,
            listening=", ".join(addresses),
            **self._engine_values(),
            auth=self._auth(),
            aliases=", ".join(f"{name}={model}" for name, model in settings.model_alias) or None,
            workers=settings.workers,
            native=description(settings.native),
            log_format=self._style,
            warning=simulated,
        )
        if not self._repeats:
            self._log_warnings()
        return self._banner() if self._terminal else ""

    def update(self) -> None:
        """Report an engine that was not known, or was another one, when it was reported last."""
        state = self._state()
        if state != self._reported and state[0] is not None:
            self._reported = state
            log_event("engine_detected", **self._engine_values())
            self._log_warnings()

    # what is known

    async def _list_models(self) -> list[ModelInfo] | None:
        """The model list; None if the engine does not return it in time. An engine that is away is not asked."""
        known = self._engine.known_models()
        if known is not None or self._engine.describe() is None:
            return known
        with suppress(Exception):  # a missing list must not keep the service from starting
            async with asyncio.timeout(_LIST_TIMEOUT):
                return await self._engine.models()
        return None

    def _known(self) -> tuple[str | None, list[ModelInfo] | None]:
        """The engine's name and its models, None where they are unknown."""
        models = self._engine.known_models()
        return self._engine.describe(), self._models if models is None else models

    def _state(self) -> tuple[str | None, bool]:
        name, models = self._known()
        return name, models is not None

    def _engine_values(self) -> dict[str, object]:
        name, models = self._known()
        ids = [model.id for model in models or ()]
        more = f" and {len(ids) - _LISTED} more" if len(ids) > _LISTED else ""
        client = self._client_model()
        return {
            "engine_kind": _KINDS[self._settings.engine_kind],
            "engine": name or "not reached yet",
            "models": ", ".join(ids[:_LISTED]) + more or None,
            "window": None if client is None else client[1],
            "claude_code": claude_code_command(client, self._url(), self._key()),
        }

    def _client_model(self) -> tuple[str, int | None] | None:
        """The model that clients should request, and its window in tokens: an alias, or the only model.

        Of several aliases it is the first whose names no other alias includes, so that `*=MODEL` comes before an alias
        for a smaller model. An alias for a model that the engine does not list is left out.
        """
        if not self._messages:
            return None
        models = self._known()[1] or []
        missing = self._missing_aliases()
        aliases = [pair for pair in self._settings.model_alias if pair not in missing]
        for name, model in aliases:
            if any(_includes(other, name) and not _includes(name, other) for other, _ in aliases):
                continue
            window = next((one.max_input_tokens for one in models if one.answers_to(model)), None)
            return (model if "*" in name else name), window
        if len(models) == 1:
            return models[0].id, models[0].max_input_tokens
        return None

    def _missing_aliases(self) -> list[tuple[str, str]]:
        """The aliases for models that the engine does not list. The simulator answers for every model.

        Of several engines, one that was not reached yet may have the model.
        """
        models = self._known()[1]
        if not models or self._settings.engine_kind == "simulate":
            return []
        names = {named.name for named in self._settings.upstreams}
        unknown = names - {model.engine for model in models}
        return [
            (name, model)
            for name, model in self._settings.model_alias
            if not any(one.answers_to(model) for one in models) and not _may_be_at(model, unknown, names)
        ]

    def _log_warnings(self) -> None:
        served = ", ".join(model.id for model in (self._known()[1] or [])[:_LISTED])
        for name, model in self._missing_aliases():
            log_event("alias_of_unknown_model", logging.WARNING, alias=name, model=model, served=served)
        client = self._client_model()
        if client is not None and (words := small_window(client[1])) is not None:
            log_event("small_window", model=client[0], window=client[1], hint=words)
        reduced = self._reduced_window()
        if reduced is not None:
            log_event("window_reduced", logging.WARNING, model_context=self._settings.model_context, window=reduced)

    def _reduced_window(self) -> int | None:
        """The window of the model file, if it is smaller than the one that the operator wants."""
        wanted, models = self._settings.model_context, self._known()[1] or []
        if self._settings.engine_kind != "model" or len(models) != 1:
            return None
        window = models[0].max_input_tokens
        return window if window is not None and window < wanted else None

    def _url(self) -> str | None:
        """A base URL for clients on this machine; None if the service listens on a Unix socket."""
        address = next((address for address in self._addresses if "://" in address), None)
        return None if address is None else reachable_url(address)

    def _key(self) -> str:
        return client_key(self._has_keys)

    def _auth(self) -> str:
        return "API key" if self._has_keys else "none: every client is served"

    # the banner

    def _banner(self) -> str:
        name, models = self._known()
        settings = self._settings
        kind = "" if settings.engine_kind == "simulate" else f" ({_KINDS[settings.engine_kind].replace('_', ' ')})"
        if settings.upstreams and name is not None:
            rows = [("engine", title) for title in name.split("; ")]
        else:
            rows = [("engine", f"{name or 'not reached yet'}{kind}")]
        for model in (models or [])[:_LISTED]:
            window = f", {model.max_input_tokens} tokens" if model.max_input_tokens is not None else ""
            rows.append(("model", f"{model.id}{window}{f', at {model.engine}' if model.engine else ''}"))
        rows += [("alias", f"{name} is answered by {model}") for name, model in settings.model_alias]
        rows += [("auth", self._auth()), ("workers", str(settings.workers)), ("log", f"{self._style}, on stderr")]
        if settings.simulated_by_default:
            rows.append(("WARNING", SIMULATED_BY_DEFAULT))
        rows += [("WARNING", f"{name}: the engine does not list {model}") for name, model in self._missing_aliases()]
        reduced, client, url = self._reduced_window(), self._client_model(), self._url()
        if reduced is not None:
            rows.append(("WARNING", f"--model-context {settings.model_context}: the model has only {reduced} tokens"))
        if client is not None and (words := small_window(client[1])) is not None:
            rows.append(("note", words))
        if client is not None and url is not None:
            head, *lines = claude_code_lines(*client, url=url, key=self._key())
            rows += [("clients", head), *(("", line) for line in lines)]
        return "\n".join(f"  {self._label(label)} {clean(text)}" for label, text in rows)

    def _label(self, label: str) -> str:
        padded = f"{label:<8}"
        return f"\x1b[1;33m{padded}\x1b[0m" if label == "WARNING" and has_colour() else padded


def _may_be_at(model: str, unknown: Set[str], names: Set[str]) -> bool:
    """Whether `MODEL@ENGINE`, or a name without an engine, may be a model of an `unknown` engine of `names`."""
    engine = model.rpartition("@")[2]
    return engine in unknown if engine in names else bool(unknown)


def _includes(wide: str, name: str) -> bool:
    """Whether the alias `wide`, in which a `*` stands for any characters, matches every name that `name` matches."""
    return re.fullmatch(".*".join(map(re.escape, wide.split("*"))), name) is not None
