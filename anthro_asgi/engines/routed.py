"""Several engines behind one front. The model name of a request selects the engine that answers it.

    model name ──► alias (http) ──► MODEL@ENGINE, or the engine that lists MODEL ──► that engine's stream
                                                                └─ not ready ──► its fallback's stream

A name with `@ENGINE` at its end goes to that engine. Any other name goes to the first engine that lists it, in the
order of the configuration. While an engine is not ready (see `member`), its fallback answers. A request may also reach
the fallback because the engine failed before its first output and then proves to be away: no output is lost or doubled.

This is not a load balancer. The engines are not replicas of each other, and a request does not move to another engine
because its own is busy.

Editors: from the first output on, a stream is that of the chosen engine itself, because iterating over a RoutedStream
yields that generator. So a token costs nothing more than with one engine.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from ..wire.deltas import Batch
from ..wire.errors import ApiError, NotFound, Overloaded, quoted
from ..wire.request import MessagesRequest
from .base import BaseEngine, ModelInfo, Observer, UpstreamEngine, ignore_observation
from .member import EngineRules, Member

ENGINE_HEADER: Final = "anthro-asgi-engine"
"""The response header that names the engine that answers."""


class RoutedEngine(BaseEngine):
    """Hands each request over to one of `engines`, by name, each with its rules.

    Raises ValueError for a fallback that is not among `engines`, or an engine that is its own fallback.
    """

    accepts_server_tools = True  # an engine that is not a relayed upstream refuses them

    def __init__(self, engines: Mapping[str, tuple[UpstreamEngine, EngineRules]]) -> None:
        self.members = {name: Member(name, engine, rules) for name, (engine, rules) in engines.items()}
        self.engine_names = tuple(self.members)
        self.takes_cuts = all(member.engine.takes_cuts for member in self.members.values())
        for name, (_, rules) in engines.items():
            fallback = None if rules.fallback is None else rules.fallback[1]
            if fallback == name:
                raise ValueError(f"engine {name}: it is its own fallback")
            if fallback is not None and fallback not in self.members:
                raise ValueError(f"engine {name}: its fallback {fallback} is not an engine")
        self._observe: Observer = ignore_observation

    def __repr__(self) -> str:
        return f"<RoutedEngine {list(self.members.values())!r}>"

    @property
    def observe(self) -> Observer:
        return self._observe

    @observe.setter
    def observe(self, observer: Observer) -> None:
        self._observe = observer
        for member in self.members.values():
            member.engine.observe = partial(self._observed, member.name)

    def _observed(self, name: str, what: str, kind: str) -> None:
        self._observe(what, kind)
        if what == "upstream_error":
            self._observe("engine_error", name)

    # life

    async def start(self) -> None:
        await asyncio.gather(*(member.start() for member in self.members.values()))

    async def stop(self) -> None:
        await asyncio.gather(*(member.stop() for member in self.members.values()))

    async def why_not_ready(self) -> str | None:
        """None if at least one engine is ready."""
        reasons = await asyncio.gather(*(member.why_not_ready() for member in self.members.values()))
        if None in reasons:
            return None
        return "; ".join(f"{name}: {reason}" for name, reason in zip(self.members, reasons, strict=True))

    async def ready(self) -> bool:
        return await self.why_not_ready() is None

    def engine_for(self, model: str) -> str | None:
        found = self._find(model)
        return None if found is None else found[0].name

    def engine_states(self) -> dict[str, str | None]:
        return {member.name: member.not_ready for member in self.members.values()}

    def describe(self) -> str | None:
        """The names with what the engines are; None if none is known yet."""
        titles = {member.name: member.engine.describe() for member in self.members.values()}
        if not any(titles.values()):
            return None
        return "; ".join(f"{name}: {title or 'not reached yet'}" for name, title in titles.items())

    def connections(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for member in self.members.values():
            for state, count in member.engine.connections().items():
                total[state] = total.get(state, 0) + count
        return total

    def replace_key_of(self, name: str, key: str | None) -> None:
        """Use this key for new requests to the engine. Raises ValueError, and then keeps the old key."""
        self.members[name].engine.replace_key(key)

    # models

    def known_models(self) -> list[ModelInfo] | None:
        """The models of all engines. A name that an earlier engine has too is listed as `NAME@ENGINE`."""
        lists = {member.name: member.known_models() for member in self.members.values()}
        if all(models is None for models in lists.values()):
            return None
        found: dict[str, ModelInfo] = {}
        for name, models in lists.items():
            for model in models or ():
                listed = model.id if model.id not in found else f"{model.id}@{name}"
                found[listed] = replace(model, id=listed, engine=name)
        return list(found.values())

    async def models(self) -> list[ModelInfo]:
        """As `known_models`, after each engine that is ready was asked. Raises ApiError when no list is known."""
        results = await asyncio.gather(
            *(member.refresh_models() for member in self.members.values()), return_exceptions=True
        )
        known = self.known_models()
        failures = [result for result in results if isinstance(result, BaseException)]
        for failure in failures:
            if known is None or not isinstance(failure, ApiError):
                raise failure
        if known is None:
            raise Overloaded("no engine is reachable", reason="unavailable")
        return known

    def _find(self, name: str) -> tuple[Member, str] | None:
        """The engine for a model name, and its own name for the model; None if no engine is known to have it."""
        for member in self.members.values():
            if any(model.id == name for model in member.known_models() or ()):
                return member, name
        model, _, engine = name.rpartition("@")
        return (self.members[engine], model) if model and engine in self.members else None

    async def route(self, name: str) -> tuple[Member, list[tuple[Member, str]]]:
        """The engine for a model name, and the engines to ask: it and its fallbacks, those that are ready first, each
        with the model to ask for.

        Raises NotFound for a model that no engine lists; Overloaded while a list is unknown that may have it.
        """
        found = self._find(name)
        if found is None:
            await self.models()
            found = self._find(name)
        if found is None:
            if any(member.known_models() is None for member in self.members.values()):
                raise Overloaded("the engine for this model is not reachable", reason="unavailable")
            raise NotFound(f"model: {quoted(name, 200)} is not served here", reason="not_found")
        candidates = list(self._with_fallbacks(*found))
        candidates.sort(key=lambda candidate: candidate[0].not_ready is not None)  # the order stays otherwise
        return found[0], candidates

    def _with_fallbacks(self, member: Member, model: str) -> Iterator[tuple[Member, str]]:
        seen = set()
        while member.name not in seen:
            seen.add(member.name)
            yield member, model
            if member.rules.fallback is None:
                return
            named, fallback = member.rules.fallback
            member = self.members[fallback]
            model = member.model_for(model) if named is None else named

    # answers

    def stream(self, request: MessagesRequest) -> "RoutedStream":
        return RoutedStream(self, request)

    async def count_tokens(self, request: MessagesRequest) -> int:
        """Raises as the engine that counts, NotFound and Overloaded."""
        _, candidates = await self.route(request.engine_model)
        for member, model in candidates:
            assigned = _assigned(request, member, model)
            try:
                return await member.engine.count_tokens(assigned)
            except ApiError as exc:
                if member is candidates[-1][0] or not await member.is_away(exc):
                    raise
        raise AssertionError("a model has at least one engine")

    def count_fallback(self, member: Member) -> None:
        """Count a request that `member` should have answered and another engine answers."""
        self._observe("engine_fallback", member.name)


def _assigned(request: MessagesRequest, member: Member, model: str) -> MessagesRequest:
    """The request for `member` and its `model`. Raises InvalidRequest if `member` cannot answer such a request.

    It is a copy: a caller may ask for a further answer to `request`, which is then routed by the same name.
    """
    if request.report_engine is not None:
        request.report_engine(member.name)
    if request.relay_only and not member.engine.accepts_server_tools:
        request.refuse_relay_only()
    return replace(request, engine_model=model)


class RoutedStream:
    """The stream of the engine that answers. Asking for the first output chooses that engine."""

    __slots__ = ("_begun", "_holder", "_request", "_routed")

    def __init__(self, routed: RoutedEngine, request: MessagesRequest) -> None:
        self._routed = routed
        self._request: MessagesRequest | None = request
        self._begun: AsyncIterator[Batch] | None = None
        self._holder: Member | None = None  # the engine of which a slot is held

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self if self._begun is None else self._begun

    async def __anext__(self) -> Batch:
        if self._begun is None:
            return await self._first()
        return await anext(self._begun)

    async def aclose(self) -> None:
        begun = self._begun
        try:
            if begun is not None:
                await begun.aclose()  # type: ignore[attr-defined]  # `stream` is an async generator
        finally:
            self._release()

    async def _first(self) -> Batch:
        """The first output, of the first engine that gives one. Raises ApiError."""
        request, self._request = self._request, None
        if request is None:
            raise StopAsyncIteration
        meant, candidates = await self._routed.route(request.engine_model)
        for member, model in candidates:
            assigned = _assigned(request, member, model)
            await member.acquire(may_wait=not request.is_batched, wanted=self._routed.slot_wanted)
            self._holder = member
            stream = member.engine.stream(assigned)
            del assigned  # the engine owns it, and releases it
            try:
                batch = await anext(stream)
            except ApiError as exc:
                self._release()
                if member is candidates[-1][0] or not await member.is_away(exc):
                    raise
                continue
            if member is not meant:
                self._routed.count_fallback(meant)
            request.response_headers.append((ENGINE_HEADER, member.name))
            self._begun = stream
            return batch
        raise AssertionError("a model has at least one engine")

    def _release(self) -> None:
        holder, self._holder = self._holder, None
        if holder is not None:
            holder.release()
