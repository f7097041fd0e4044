"""The engine protocol: `BaseEngine`, and `ModelInfo` for the models an engine lists.

`http`, `simulator` and `cli` know an engine by this file alone. How other things (a generator function, an object that
has `stream`) become a BaseEngine is in `functions`.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from ..wire.deltas import Batch
from ..wire.errors import ApiError
from ..wire.request import MessagesRequest
from .shared.call_repair import CallRepair as CallRepair  # for rooms that import this file alone

Observer = Callable[[str, str], None]
NOT_READY: Final = "the engine does not answer"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model an engine serves. `created` in Unix seconds; limits in tokens, None when the engine does not tell."""

    id: str
    display_name: str = ""
    created: int = 0
    max_input_tokens: int | None = None
    max_tokens: int | None = None
    owned_by: str = ""
    engine: str = ""
    """The engine that serves it, by its name in the configuration; empty if there is only one engine."""

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` gets this model: by its id, or by `MODEL@ENGINE`."""
        return name == self.id or (self.engine != "" and name == f"{self.id}@{self.engine}")


class Engine(Protocol):
    """The minimum an engine must implement. `functions.as_engine` adds the defaults of BaseEngine."""

    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]: ...


def ignore_observation(what: str, kind: str) -> None:
    """The default observer. It does nothing."""


def ignore_waiting(engine: str) -> None:
    """The default of `slot_wanted`. It does nothing."""


class BaseEngine(ABC):
    """Answers requests. Only `stream` must be implemented; every other method has a default.

    An engine raises ApiError (see `wire.errors`) with the error that the client shall receive. Any other exception is a
    bug in the engine: the client receives a plain InternalError, and the log shows the place of the exception.
    """

    returning_ends_turn: bool = False
    """Whether `stream` may return without a Finish, which then means `end_turn`. If False, that is an error."""

    accepts_server_tools: bool = False
    """Whether it gets requests that only an upstream of the Messages API can serve (`MessagesRequest.relay_only`), and
    then serves or refuses them. If False, the service refuses them by name.
    """

    engine_names: tuple[str, ...] = ()
    """The names of the engines behind this one, for a front of several; empty for a single engine."""

    slot_wanted: Callable[[str], object] = staticmethod(ignore_waiting)
    """The application sets it. A front of several engines calls it with the name of an engine when a client's request
    has to wait for one of the slots of that engine.
    """

    takes_cuts: bool = False
    """Whether `stream` and `count_tokens` accept a large request whose `cuts` are not in its messages and tools, and
    change nothing in the tools of a request: then requests with the same tools share them (`wire.known_tools`).
    """

    observe: Observer = staticmethod(ignore_observation)
    """The application sets it, and the engine calls it: `observe("upstream_error", kind)` with a kind of
    `wire.errors.UPSTREAM_ERROR_KINDS`, `observe("repair", kind)` with a kind of `wire.repairs.REPAIRS`.
    """

    @abstractmethod
    def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        """The answer, as an async generator of deltas or lists of deltas (see `wire.deltas`).

        The caller closes it with `aclose` when the client disconnects or a stop sequence matches. Raises ApiError.
        """

    def call_repair(self) -> CallRepair | None:
        """What repairs the tool calls of one answer; None for an engine that yields JSON objects only."""
        return CallRepair()

    async def start(self) -> None:  # noqa: B027 - the default does nothing
        """Run once before the first request, in the event loop that serves."""

    async def stop(self) -> None:  # noqa: B027 - the default does nothing
        """Run once after the last request."""

    async def ready(self) -> bool:
        """Whether the engine can answer now."""
        return True

    async def why_not_ready(self) -> str | None:
        """Why the engine cannot answer now, in words for the operator; None if it can. `/readyz` reports it.

        The default asks `ready`.
        """
        return None if await self.ready() else NOT_READY

    async def models(self) -> list[ModelInfo]:
        """The models it serves; empty if it has no list. Raises ApiError if the list is not available now."""
        return []

    async def count_tokens(self, request: MessagesRequest) -> int:
        """The exact length of the request's prompt in tokens.

        Raises NotImplementedError if the engine cannot count tokens, ApiError if it cannot count them now.
        """
        raise NotImplementedError

    def describe(self) -> str | None:
        """What the engine is, in a few words for the operator; None while that is unknown."""
        return type(self).__name__

    def known_models(self) -> list[ModelInfo] | None:
        """The model list as far as it is known without asking: None if it was not asked for yet."""
        return None

    def connections(self) -> dict[str, int]:
        """How many upstream connections there are, by state; empty for an engine without an upstream."""
        return {}

    def engine_for(self, model: str) -> str | None:
        """The one of `engine_names` that answers requests for a model; None if it is not known without asking."""
        return None

    def engine_states(self) -> Mapping[str, str | None]:
        """Why each of `engine_names` is not ready, as far as it is known without asking; None for one that is."""
        return {}

    def replace_key(self, key: str | None) -> None:  # noqa: B027 - the default does nothing
        """Use this upstream key from now on. Raises ValueError for an invalid key, and keeps the old one then."""

    def replace_key_of(self, name: str, key: str | None) -> None:  # noqa: B027 - the default does nothing
        """The same for one of `engine_names`."""


class EngineIdentity(Protocol):
    """What an upstream turned out to be. `title` is a name for people, such as `vLLM`."""

    @property
    def title(self) -> str: ...


class UpstreamEngine(BaseEngine):
    """An engine behind a URL. It finds out by requests what the upstream is."""

    def call_repair(self) -> None:
        """None: it repairs the calls of the upstream itself."""

    @abstractmethod
    async def detect(self) -> EngineIdentity:
        """What the upstream is. Raises ApiError when it cannot be reached."""

    def remedy(self, error: ApiError) -> str | None:
        """What the operator can do about an error of this engine; None if nothing is known."""
        return None
