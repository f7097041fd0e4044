"""Every recorded chat completion through the whole service, streaming and not (contract sections 4 to 7).

The result is compared with `reading`, an independent reader of the recording, and with the engine's own answer to the
same request without `stream` if there is a recording of it.
"""

import asyncio
import json
from typing import Any

import pytest

from anthro_asgi.conformance.grammar import Event, check_stream, message_from_events, parse_events
from anthro_asgi.testing.driver import Response
from tests.replay import Case, cases
from tests.replay.asking import messages_request
from tests.replay.reading import Reading, read
from tests.replay.serving import CHAT, Replay, event_ends, replaying
from tests.support.client import ask_both_ways
from tests.support.service import Service
from tests.support.upstream import ScriptedUpstream

Json = dict[str, Any]

# Streams with status 200 that end in an error: its status, its type, and whether there was output before it, so that
# it is sent as an event.
BROKEN: dict[str, tuple[int, str, bool]] = {
    "vllm/12_midstream_kill_v1_chat_completions.sse": (500, "api_error", True),
    "vllm-noreason/06f_thinking_budget.sse": (400, "invalid_request_error", False),
    "sglang/12_midstream_abort_v1_chat_completions.sse": (502, "api_error", True),
    "sglang/12_midstream_kill_v1_chat_completions.sse": (502, "api_error", True),
    "llama-cpp-python/07b_ctx_exceeded_stream.json": (502, "api_error", False),
}
REFUSED = {400: (400, "invalid_request_error"), 422: (400, "invalid_request_error"), 404: (404, "not_found_error")}
LONGEST_BY_BYTES = 2500  # bytes of a stream that is given one by one
LONGEST_PROMPT = {"llamacpp": 2318, "vllm": 1025, "sglang": 2314, "llama-cpp-python": 2314, "max": 9120}
LONGEST_CONTEXT = {"max": 4096}  # 1024 for the other engines

ALL = cases(request=CHAT)
GOOD = [case for case in ALL if case.status == 200 and case.file not in BROKEN]
OVERFLOWS = [
    case for case in ALL if case.status == 400 and case.name in ("07_ctx_exceeded_nonstream", "07b_ctx_exceeded_stream")
]
NO_IMAGES = cases("llamacpp", name="08i_image")
REFUSALS = [case for case in ALL if case.status in REFUSED and case not in OVERFLOWS]
BREAKDOWNS = [case for case in ALL if case.file in BROKEN]
FAILURES = [case for case in ALL if case.status == 500 and case not in NO_IMAGES]


def stops_of(case: Case) -> list[str]:
    stops: list[str] = messages_request(case).get("stop_sequences", [])
    return stops


def events_of(response: Response) -> list[Event]:
    assert response.status == 200, response.body
    assert response.header("content-type") == "text/event-stream; charset=utf-8"
    events = parse_events(response.body)
    check_stream(events)
    return events


async def both_ways(replay: Replay, case: Case) -> tuple[Json, Json]:
    """The Message that is streamed and the one that is not."""
    streamed = message_from_events(events_of(await replay.ask(case, stream=True)))
    response = await replay.ask(case, stream=False)
    assert (response.status, response.header("content-type")) == (200, "application/json"), response.body
    return streamed, response.json()


def agree(streamed: Json, whole: Json) -> None:
    """The two are one Message; but input that max_tokens cut off is repaired in the whole one, or left out."""
    cut = [block for block in streamed["content"] if isinstance(block.get("input"), str)]
    content = [block for block in whole["content"] if block.get("id") not in [block["id"] for block in cut]]
    assert content == [block for block in streamed["content"] if block not in cut]
    assert not cut or streamed["stop_reason"] == "max_tokens"
    for key in ("type", "role", "model", "stop_reason", "stop_sequence", "usage"):
        assert streamed[key] == whole[key]


def says(message: Json, reading: Reading) -> None:
    """The Message is the recorded answer: its blocks, why it ended, and what it cost."""
    assert [bare(block) for block in message["content"]] == [parsed(block) for block in reading.content]
    assert (message["stop_reason"], message["stop_sequence"]) == (reading.stop_reason, reading.stop_sequence)
    ids = {
        block["id"]: said["id"]
        for block, said in zip(message["content"], reading.content, strict=True)
        if "id" in block
    }
    assert all(given == said or (said is None and given.startswith("toolu_")) for given, said in ids.items())
    assert len(ids) == sum(block["type"] == "tool_use" for block in reading.content), "two calls have one id"
    prompt, output = reading.tokens
    usage = message["usage"]
    if prompt is None:
        assert usage["output_tokens"] > 0 or reading.content == []
    else:
        cached = usage.get("cache_read_input_tokens", 0) + usage.get("cache_creation_input_tokens", 0)
        assert usage["input_tokens"] + cached == prompt
        assert usage["output_tokens"] == output


def bare(block: Json) -> Json:
    return {key: value for key, value in block.items() if key not in ("id", "signature")}


def parsed(block: Json) -> Json:
    """A read block as it is in a stream: input as the object it is; where it was cut off, as its text."""
    if block["type"] != "tool_use":
        return block
    try:
        value = json.loads(block["input"] or "{}")
    except ValueError:
        value = block["input"]
    return {"type": "tool_use", "name": block["name"], "input": value}


# answers


@pytest.mark.slow
@pytest.mark.clause("4.7", "5.17")
@pytest.mark.parametrize("case", GOOD, ids=str)
async def test_every_recorded_answer_gives_the_same_message_streamed_and_whole(case: Case) -> None:
    async with replaying(case) as replay:
        streamed, whole = await both_ways(replay, case)
    agree(streamed, whole)
    says(streamed, read(case, stops_of(case)))


def asked(case: Case) -> str:
    """What a request was but for whether it wanted a stream."""
    return json.dumps({**case.body, "stream": None, "stream_options": None}, sort_keys=True)


# Cut off inside a call's arguments, these engines give a call in a stream, and without one text or nothing at all.
CUT_IN_A_CALL = "05g_tools_required_cut"
ASKED = [(case, (case.engine, case.variant, asked(case))) for case in GOOD if isinstance(case.body, dict)]
TWINS = [
    (case, twin)
    for case, what in ASKED
    if case.streamed
    for twin, what_twin in ASKED
    if not twin.streamed and what == what_twin
    if case.name != CUT_IN_A_CALL or case.engine in ("llamacpp", "llama-cpp-python")
]


def content_of(blocks: list[Json], case: Case) -> list[Json]:
    """The content, as far as the engine says the same in both ways: these two take blank space off their texts."""
    if case.engine != "transformers" and case.variant != "v2":
        return blocks
    stripped = [
        {key: value.strip() if key == block["type"] else value for key, value in block.items()} for block in blocks
    ]
    return [block for block in stripped if block.get("text") != ""]


@pytest.mark.slow
@pytest.mark.clause("5.17")
@pytest.mark.parametrize(("case", "twin"), TWINS, ids=str)
async def test_a_stream_gives_the_same_message_as_the_engines_answer_without_stream(case: Case, twin: Case) -> None:
    async with replaying(case) as replay:
        message = message_from_events(events_of(await replay.ask(case, stream=True)))
    reading = read(twin, stops_of(twin))
    given, said = [bare(block) for block in message["content"]], [parsed(block) for block in reading.content]
    assert content_of(given, case) == content_of(said, case)
    assert (message["stop_reason"], message["stop_sequence"]) == (reading.stop_reason, reading.stop_sequence)


def shortest() -> list[Case]:
    """For each engine and each kind of streamed answer it gave, the recording with the fewest bytes."""
    found: dict[Any, Case] = {}
    for case in sorted(GOOD, key=lambda case: len(case.content)):
        if case.streamed and len(case.content) < LONGEST_BY_BYTES:
            reading = read(case, stops_of(case))
            kinds = tuple(block["type"] for block in reading.content)
            found.setdefault((case.engine, kinds, reading.stop_reason), case)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.clause("6.10")
@pytest.mark.parametrize("case", shortest(), ids=str)
async def test_a_recorded_stream_in_single_bytes_is_the_same_message(case: Case) -> None:
    async with replaying(case, cuts=range(LONGEST_BY_BYTES * 2)) as replay:
        message = message_from_events(events_of(await replay.ask(case, stream=True)))
    says(message, read(case, stops_of(case)))


@pytest.mark.slow
async def test_the_chat_request_equals_the_recorded_request() -> None:
    """The requests make sense for the answers: the same turns, tools and choice, by each engine's own dialect."""
    for case in cases("vllm", request=CHAT, status=200):
        if not isinstance(case.body, dict) or case.name in ("08f_badrole", "08o_unknown_fields"):
            continue
        async with replaying(case) as replay:
            await replay.ask(case, stream=True)
            (sent,) = replay.asked
        assert [turn["role"] for turn in sent["messages"]] == [turn["role"] for turn in case.body["messages"]]
        # the model thinks, so its stop sequences stay in the service, where they cannot end the thinking
        assert "stop" not in sent
        for key in ("tools", "tool_choice", "reasoning_effort", "top_p"):
            if key in case.body and case.name != "05k_required_no_tools":
                assert sent[key] == case.body[key], key
        assert case.body.get("chat_template_kwargs", {}).items() <= sent.get("chat_template_kwargs", {}).items()


# errors


def error_of(response: Response) -> Json:
    """The error of a refusal, in its envelope."""
    body = response.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert (body["type"], body["request_id"]) == ("error", response.header("request-id"))
    error: Json = body["error"]
    return error


async def refused(case: Case) -> tuple[int, Json]:
    """Status and error, streaming and not the same."""
    async with replaying(case) as replay:
        streamed, whole = [await replay.ask(case, stream=stream) for stream in (True, False)]
    assert streamed.status == whole.status
    assert error_of(streamed) == error_of(whole)
    return whole.status, error_of(whole)


@pytest.mark.clause("7.6")
@pytest.mark.parametrize("case", OVERFLOWS, ids=str)
async def test_every_recorded_overflow_has_the_words_that_clients_act_on(case: Case) -> None:
    words = (
        f"prompt is too long: {LONGEST_PROMPT[case.engine]} tokens > {LONGEST_CONTEXT.get(case.engine, 1024)} maximum"
    )
    assert await refused(case) == (400, {"type": "invalid_request_error", "message": words})


@pytest.mark.slow
@pytest.mark.clause("7.5", "7.14")
@pytest.mark.parametrize("case", REFUSALS, ids=str)
async def test_every_recorded_refusal_reaches_the_client_in_the_engines_words(case: Case) -> None:
    status, error = await refused(case)
    assert (status, error["type"]) == REFUSED[404 if case.name == "08d_unknown_model" else case.status]
    body = json.loads(case.content)
    said = body.get("error", body)
    words = said.get("message") or said["detail"]
    if isinstance(words, str):
        assert error["message"] != ""
        told = error["message"].removeprefix("messages: could not process image: ")  # words that clients heal on
        assert words.startswith(told.partition("…")[0])
    else:
        assert json.loads(error["message"]) == words
    assert "/opt/" not in error["message"]
    assert "File " not in error["message"]


@pytest.mark.clause("7.5")
@pytest.mark.parametrize("case", FAILURES, ids=str)
async def test_every_recorded_failure_is_reported_without_the_engines_words(case: Case) -> None:
    assert await refused(case) == (500, {"type": "api_error", "message": "the engine failed"})


@pytest.mark.parametrize("case", NO_IMAGES, ids=str)
async def test_an_image_that_the_model_cannot_read_is_a_400(case: Case) -> None:
    status, error = await refused(case)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert "image input is not supported" in error["message"]


@pytest.mark.clause("5.16")
@pytest.mark.parametrize("at_once", [False, True], ids=["event by event", "read at once"])
@pytest.mark.parametrize("case", BREAKDOWNS, ids=str)
async def test_every_recorded_failure_in_a_stream_is_an_error_and_never_end_turn(case: Case, at_once: bool) -> None:
    status, kind, begun = BROKEN[case.file]
    async with replaying(case, cuts=() if at_once else event_ends(case)) as replay:
        streamed, whole = [await replay.ask(case, stream=stream) for stream in (True, False)]
    assert (whole.status, error_of(whole)["type"]) == (status, kind)
    if not begun:
        assert (streamed.status, error_of(streamed)) == (status, error_of(whole))
        return
    *before, last = events_of(streamed)
    assert (last.type, last.data["error"]) == ("error", error_of(whole))
    assert last.data["request_id"] == streamed.header("request-id")
    assert any(event.type == "content_block_delta" for event in before)


def test_every_case_of_the_corpus_is_replayed() -> None:
    replayed = [GOOD, OVERFLOWS, REFUSALS, FAILURES, NO_IMAGES, BREAKDOWNS]
    assert sorted(case.file for some in replayed for case in some) == sorted(map(str, ALL))
    assert len(ALL) == 457


# the real command


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["llamacpp", "vllm"])
async def test_the_command_gives_the_same_messages(engine: str) -> None:
    replay = Replay(engine)
    selection = [case for case in shortest() if case.engine == engine and case.name != CUT_IN_A_CALL]

    def messages(url: str) -> list[Json]:
        out = []
        with Service("--upstream", f"{url}/v1") as service:
            for case in selection:
                replay.play(case, event_ends(case))
                out.append(ask_both_ways(service.url, **messages_request(case)))
        return out

    async with ScriptedUpstream(replay.answer) as upstream:
        given = await asyncio.to_thread(messages, upstream.url)
    for case, message in zip(selection, given, strict=True):
        says(message, read(case, stops_of(case)))
