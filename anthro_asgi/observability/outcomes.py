"""How a request is counted: route, status, how it ended, streamed or not. All values are in tables, so bounded."""

from collections.abc import Collection, Iterator
from itertools import product
from typing import Final, get_args

from ..wire.deltas import StopReason
from ..wire.errors import ApiError
from .logs import RequestRecord

Outcome = tuple[str, str, str, str]

OTHER: Final = "other"
LABELS: Final[Outcome] = ("route", "status", "stop_reason", "stream")

_ANSWERS: Final = ("/v1/messages", "/v1/chat/completions")  # routes of which it is told how an answer ended
_MODEL: Final = "/v1/models/{id}"
_FAILED: Final = "error"
_LEFT: Final = "client_left"
_ENDS: Final = ("", *get_args(StopReason), _FAILED, _LEFT, OTHER)
_STREAMS: Final = {None: "", False: "false", True: "true"}


class Outcomes:
    """The outcomes of an app that has these `paths`."""

    def __init__(self, paths: Collection[str]) -> None:
        self._routes = {path: _route(path, paths) for path in paths}
        self._models = tuple(f"{path}/" for path in paths if path.endswith("/models"))
        self.routes = tuple(dict.fromkeys([*self._routes.values(), _MODEL, OTHER]))

    def route(self, path: str) -> str:
        """One name for all the ways in which a client may write a path."""
        return self._routes.get(path) or (_MODEL if path.startswith(self._models) else OTHER)

    def every(self) -> Iterator[Outcome]:
        """All that `of` may say."""
        statuses = (*_STATUSES.values(), OTHER)
        for route in self.routes:
            if route in _ANSWERS:
                yield from product((route,), statuses, _ENDS, _STREAMS.values())
            else:
                yield from product((route,), statuses, ("", _LEFT), ("",))

    def of(self, record: RequestRecord) -> Outcome:
        """That of a request."""
        route = self.route(record.path)
        status = _STATUSES.get(record.status, OTHER)
        end = ""
        if record.client_left:
            end = _LEFT
        elif route in _ANSWERS and record.status == 200:
            end = _FAILED if record.error_type is not None else record.stop_reason or ""
            if end not in _ENDS:
                end = OTHER
        return route, status, end, _STREAMS[record.stream] if route in _ANSWERS else ""


def _route(path: str, paths: Collection[str]) -> str:
    """`/v1/…`, where the app has that, for `/…` and `/v1/v1/…`."""
    usual = "/v1" + path.removeprefix("/v1").removeprefix("/v1")
    return usual if usual in paths else path


def _error_statuses(error: type[ApiError] = ApiError) -> Iterator[int]:
    yield error.status
    for kind in error.__subclasses__():
        yield from _error_statuses(kind)


_STATUSES: Final[dict[int | None, str]] = {
    None: "none",  # it was never answered
    **{status: str(status) for status in sorted({200, 503, *_error_statuses()})},  # 503 is what `/readyz` says
}
