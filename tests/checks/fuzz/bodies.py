"""Mutated request bodies, and the rules for each.

- It is accepted, or refused with a status from 400 to 499 in an envelope. No other exception is raised.
- Read at once and in steps it gives the same request or the same error.
- An accepted request can be relayed. It can be converted for every engine, with the same body at once and in steps,
  unless it says that only a relayed upstream can answer it: then every other engine refuses it, and says why.
- A request of which parts stay JSON text is sent as one that is parsed entirely.
- A share goes through the service over the simulated engine: no 500, a stream that keeps the grammar, and equal counts.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from math import inf
from random import Random
from typing import Any

import orjson

from anthro_asgi import MessagesApp
from anthro_asgi.conformance.grammar import check_stream, message_from_events, parse_events
from anthro_asgi.engines.messages import engine
from anthro_asgi.engines.openai import chat_request
from anthro_asgi.engines.openai.dialects import DIALECTS, LLAMACPP
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.testing.driver import Response
from anthro_asgi.wire import messages_checks
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.estimate import estimate_tokens
from anthro_asgi.wire.json_codec import loads_exactly
from anthro_asgi.wire.large import cooperative, json_reader
from anthro_asgi.wire.large.cooperative import LARGE_BODY, run_to_end
from anthro_asgi.wire.large.cuts import MARK_JSON, Cuts
from anthro_asgi.wire.request import MessagesRequest, parse_request, parse_request_in_steps
from anthro_asgi.wire.request_policy import Rules
from tests.checks.fuzz import served
from tests.checks.fuzz.mutation import Stock, cut, mangle, mutate, written
from tests.checks.fuzz.requests import valid
from tests.checks.fuzz.running import Breach
from tests.checks.fuzz.served import post, serving

Json = dict[str, Any]
Outcome = MessagesRequest | ApiError

SERVED = 1 / 12  # of the trials: a request through the service takes ten times as long as parsing
SMALL = {
    json_reader: {"_WHOLE": 0, "_WINDOW": 96, "_CHUNK": 60, "_LONG": 16, "_LONG_IF_WIDE": 8, "_LARGE": 32},
    messages_checks: {"_DECODED": 8, "_SLICE": 24, "_PARSED": 8},
}
ROLES = {"system", "user", "assistant", "tool"}
_BILLING_HEADER = b"billing-header"
LONGEST_MESSAGE = 1000  # characters of an error


@dataclass(frozen=True, slots=True)
class Trial:
    """A body and the settings of its trial. `at_random` seeds the places where it is cut."""

    data: bytes
    counting: bool
    rules: Rules
    dialects: tuple[str, ...]
    served: bool
    at_random: int


@contextmanager
def lowered(bounds: dict[Any, dict[str, int]]) -> Iterator[None]:
    """Lower the thresholds, so that small bodies are handled like large ones."""
    with ExitStack() as stack:
        for module, names in bounds.items():
            for name, value in names.items():
                stack.callback(setattr, module, name, getattr(module, name))
                setattr(module, name, value)
        yield


class Bodies:
    """See the module."""

    name = "bodies"

    def __init__(self) -> None:
        self._valid = valid()
        self._stock = Stock(map(json.loads, self._valid))
        self._dialects = sorted(DIALECTS)

    def draw(self, rng: Random) -> Trial:
        body = rng.choice(self._valid)
        if rng.random() < 0.9:
            value = json.loads(body)
            mutate(value, self._stock, rng)
            body = written(value, rng)
        if rng.random() < 0.12:
            body = mangle(body, rng)
        return Trial(
            body,
            counting=rng.random() < 0.1,
            rules=_rules(rng),
            dialects=tuple(rng.sample(self._dialects, 2)),
            served=rng.random() < SERVED,
            at_random=rng.getrandbits(32),
        )

    def check(self, trial: Trial) -> str:
        rng = Random(trial.at_random)
        outcome = _read(lambda: parse_request(trial.data, counting=trial.counting, rules=trial.rules))
        _must_agree_in_steps(trial, outcome, rng)
        if isinstance(outcome, ApiError):
            _must_be_said(outcome)
            said = f"refused with {outcome.status}"
        else:
            for name in trial.dialects:
                _must_be_askable(outcome, name)
                if _BILLING_HEADER not in trial.data:  # it is looked for in strings that are never cut out
                    _must_be_sent_the_same_with_cuts(trial, outcome, name, rng)
            said = "read"
        if trial.served:
            said = f"served: {served.finished(_served(trial, outcome, rng))}"
        return said


def _rules(rng: Random) -> Rules:
    """The default rules, or random ones with low limits."""
    if rng.random() < 0.7:
        return Rules()
    chosen: dict[str, Any] = {}
    for field in fields(Rules):
        if type(field.default) is str or field.name == "files":  # a service puts the content of files in first
            continue
        low = rng.choice((1, 2, 9))
        chosen[field.name] = rng.random() < 0.5 if type(field.default) is bool else rng.choice((low, field.default))
    return Rules(**chosen)


def _read(read: Callable[[], MessagesRequest]) -> Outcome:
    try:
        return read()
    except ApiError as exc:
        return exc


# rules


def _must_agree_in_steps(trial: Trial, at_once: Outcome, rng: Random) -> None:
    body = cut(trial.data, rng)
    with lowered(SMALL):
        in_steps = _read(lambda: run_to_end(parse_request_in_steps(body, counting=trial.counting, rules=trial.rules)))
    if _shown(at_once) != _shown(in_steps):
        raise Breach(f"read in steps it says something else\n{_shown(at_once)}\n{_shown(in_steps)}")


def _shown(outcome: Outcome) -> object:
    """Everything observable, including the types of numbers and the order of keys."""
    if isinstance(outcome, ApiError):
        return type(outcome), str(outcome), outcome.error_code
    return repr(outcome.raw), outcome.body_size, outcome


def _must_be_said(error: ApiError) -> None:
    if not 400 <= error.status < 500:
        raise Breach(f"a request is refused with a status from 400 to 499\n{error!r}")
    if not 0 < len(error.message) <= LONGEST_MESSAGE:
        raise Breach(f"a message says something, and not too much\n{len(error.message)} characters")
    body = orjson.loads(error.body("req_1"))
    if body.keys() != {"type", "error", "request_id"}:
        raise Breach(f"an error has its envelope\n{body}")


def _must_be_askable(request: MessagesRequest, name: str) -> None:
    dialect = DIALECTS[name]
    for relayed in (dialect, LLAMACPP):  # llama.cpp receives only the tools that it may call
        asked = engine._body(request, relayed)
        chat_request.encode(asked)
        choice = asked.get("tool_choice")
        if choice not in (None, request.raw.get("tool_choice")) and not asked["tools"]:
            raise Breach(f"a choice is changed only if a tool is left for it\n{asked!r:.300}")
    estimate_tokens(request)
    if request.relay_only:
        _must_be_left_to_a_relay(request, name)
        return
    try:
        body = chat_request.to_chat(request, dialect)
        at_once = chat_request.encode(body)
    except ApiError as exc:
        raise Breach(f"what was read can be asked of an engine\n{name}: {exc}") from exc
    in_steps = run_to_end(chat_request.to_chat_in_steps(request, dialect))
    if b"".join(run_to_end(chat_request.encode_in_steps(in_steps))) != at_once:
        raise Breach(f"converted in steps it is something else\n{name}")
    if b"".join(run_to_end(chat_request.encode_in_steps(body))) != at_once:
        raise Breach(f"encoded in steps it is something else\n{name}")
    for message in body["messages"]:
        if message["role"] not in ROLES or type(message.get("content")) not in (str, list, type(None)):
            raise Breach(f"a chat message has a role and a content\n{message}")
    if dialect.never & body.keys():
        raise Breach(f"an engine is not sent what it refuses\n{name}: {dialect.never & body.keys()}")


def _must_be_sent_the_same_with_cuts(trial: Trial, request: MessagesRequest, name: str, rng: Random) -> None:
    """A request of which parts stay JSON text is sent to every engine as one that is parsed entirely."""
    cuts = Cuts()
    with lowered(SMALL):
        parsing = parse_request_in_steps(
            cut(trial.data, rng), counting=trial.counting, rules=trial.rules, cuts=cuts, expansion=inf
        )
        kept = run_to_end(parsing)
        asked = [
            (engine._body(request, dialect), engine._body(kept, dialect)) for dialect in (DIALECTS[name], LLAMACPP)
        ]
        if not request.relay_only:
            asked.append(
                (
                    chat_request.to_chat(request, DIALECTS[name]),
                    run_to_end(chat_request.to_chat_in_steps(kept, DIALECTS[name])),
                )
            )
        for expected, marked in asked:
            pieces = run_to_end(cuts.fill(run_to_end(chat_request.encode_in_steps(marked))))
            sent = b"".join(pieces)
            if MARK_JSON in sent or _value(sent) != _value(chat_request.encode(expected)):
                raise Breach(f"sent with what was cut out it is something else\n{name} {sent!r:.500}")
    if _shown_without_content(request) != _shown_without_content(kept):
        raise Breach(f"with parts cut out it says something else\n{_shown_without_content(kept)}")


def _value(sent: bytes) -> object:
    """Everything observable in a body, also in tool arguments, whose spaces may differ."""
    value = loads_exactly(sent)[0]
    for message in value["messages"]:
        for call in message.get("tool_calls") or ():
            call["function"]["arguments"] = repr(loads_exactly(call["function"]["arguments"].encode())[0])
    return repr(value)


def _shown_without_content(request: MessagesRequest) -> object:
    """What the service itself does with a request."""
    return [
        getattr(request, field.name)
        for field in fields(request)
        if field.name not in ("messages", "system", "tools", "output_schema", "raw", "cuts", "is_large")
    ]


def _must_be_left_to_a_relay(request: MessagesRequest, name: str) -> None:
    """A request that only a relayed upstream can answer is refused for every other engine, at once and in steps."""
    ways: tuple[Callable[[], Json], ...] = (
        lambda: chat_request.to_chat(request, DIALECTS[name]),
        lambda: run_to_end(chat_request.to_chat_in_steps(request, DIALECTS[name])),
    )
    for way in ways:
        try:
            asked = way()
        except ApiError as exc:
            _must_be_said(exc)
            if exc.message != request.relay_only[0]:
                raise Breach(f"the refusal says why only a relay can answer\n{name}: {exc}") from exc
        else:
            raise Breach(f"only a relay is asked for what only a relay can do\n{name}: {asked!r:.300}")


# through the service


@lru_cache
def _service(rules: Rules) -> MessagesApp:
    """Shared by many trials, because it is slow to create."""
    return MessagesApp(SimulatedEngine(ttft=0, itl=0), rules=rules)


async def _served(trial: Trial, read: Outcome, rng: Random) -> str:
    service = _service(trial.rules)
    large = {cooperative: {"LARGE_BODY": rng.choice((0, LARGE_BODY))}}
    with lowered({**SMALL, **large}):
        async with serving(service) as driver:
            answer = await post(driver, "/v1/messages", cut(trial.data, rng))
            counted = await post(driver, "/v1/messages/count_tokens", [trial.data])
    for response in (answer, counted):
        if response.status >= 500:
            raise Breach(f"a request is never answered with a 500\n{response.status} {response.body!r:.300}")
    is_refused = isinstance(read, ApiError) or bool(read.relay_only)  # the simulator is no relayed upstream
    if not trial.counting and (answer.status < 400) is is_refused:
        raise Breach(f"the service answers what is read, and nothing else\n{answer.status} {answer.body!r:.300}")
    if answer.status != 200:
        return f"{answer.status}"
    message = _message(answer)
    if message is not None and counted.json()["input_tokens"] != message["usage"]["input_tokens"]:
        raise Breach(f"a count is the usage\n{counted.json()} {message['usage']}")
    return "200" if message is not None else "an error in a stream"


def _message(answer: Response) -> Json | None:
    if answer.header("content-type") == "application/json":
        message: Json = answer.json()
        return message
    events = parse_events(answer.body)
    check_stream(events)
    return None if events[-1].type == "error" else message_from_events(events)
