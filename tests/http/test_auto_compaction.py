"""`--compact-at`: conversations are compacted for clients that do not ask for it (contract 3.52)."""

import logging
from time import process_time
from typing import Any

import orjson
import pytest

from anthro_asgi import Finish, MessagesApp, ModelInfo, Usage
from anthro_asgi.http.auto_compaction import AutoCompaction, _cut
from anthro_asgi.testing.driver import Driver, Response
from anthro_asgi.wire.compaction_prompt import SUMMARY_PROMPT
from anthro_asgi.wire.large.cooperative import run_to_end
from tests.support.scripted_engine import ScriptedAnswers, Step, saying

Json = dict[str, Any]
BOTH = pytest.mark.parametrize("stream", [False, True])
LONG = "word " * 400  # 500 tokens by the estimate
SUMMARY: list[Step] = ["<summary>So far.</summary>", [Usage(900, 30), Finish("end_turn")]]
STANDS_FOR_IT: Json = {"role": "user", "content": "<summary>\nSo far.\n</summary>"}


class Engine(ScriptedAnswers):
    """Lists a model with a window of 2 000 tokens."""

    def known_models(self) -> list[ModelInfo]:
        return [ModelInfo("m", max_input_tokens=2_000)]


class TakesCuts(Engine):
    """May get large requests with marks in place of long strings."""

    takes_cuts = True


def user(text: str) -> Json:
    return {"role": "user", "content": text}


def assistant(text: str) -> Json:
    return {"role": "assistant", "content": text}


HISTORY = [user(f"{LONG}1"), assistant(f"{LONG}2"), user(f"{LONG}3"), assistant("4"), user("5")]
BODY: Json = {"model": "m", "max_tokens": 9, "messages": HISTORY}


async def post(app: MessagesApp, *, key: str = "a", **changes: Any) -> Response:
    headers = ((b"x-api-key", key.encode()),)
    body = orjson.dumps({**BODY, **changes})
    response = await Driver(app).request("POST", "/v1/messages", body=body, headers=headers)
    assert response.status == 200, response.body
    return response


def header(response: Response) -> str | None:
    return next(iter(response.headers.get("anthro-asgi-compacted", ())), None)


def app_of(engine: Engine) -> MessagesApp:
    return MessagesApp(engine, keys=["a", "b"], compact_at=0.5)


@pytest.mark.clause("3.52")
@BOTH
async def test_a_long_conversation_is_compacted_without_a_block(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    engine = Engine(SUMMARY, saying("Six."))
    with caplog.at_level(logging.INFO):
        response = await post(app_of(engine), stream=stream)
    assert b'"compaction"' not in response.body.replace(b'"type":"compaction","input_tokens"', b"")
    assert header(response) == "made"
    assert "compacted" in caplog.text
    summary, answer = engine.requests
    assert summary.messages == [*HISTORY[:3], user(SUMMARY_PROMPT)]
    assert answer.messages == [STANDS_FOR_IT, *HISTORY[3:]]
    assert answer.raw["messages"] == answer.messages


@pytest.mark.clause("3.52")
async def test_the_next_request_uses_the_same_summary() -> None:
    engine = Engine(SUMMARY, saying("Six."), saying("Eight."))
    app = app_of(engine)
    await post(app)
    marked = [{**HISTORY[0], "content": [{"type": "text", "text": f"{LONG}1", "cache_control": {"type": "ephemeral"}}]}]
    later = [*marked, *HISTORY[1:], assistant("Six."), user("Seven?")]
    response = await post(app, messages=later)
    assert header(response) == "reused"
    assert engine.requests[2].messages == [STANDS_FOR_IT, *HISTORY[3:], assistant("Six."), user("Seven?")]


@pytest.mark.clause("3.52")
async def test_a_summary_is_not_used_for_another_key_or_another_beginning() -> None:
    engine = Engine(*[step for _ in range(3) for step in (SUMMARY, saying("Six."))])
    app = app_of(engine)
    headers = [
        header(await post(app)),
        header(await post(app, key="b")),
        header(await post(app, messages=[user(f"{LONG}x"), *HISTORY[1:]])),
    ]
    assert headers == ["made"] * 3


@pytest.mark.clause("3.52")
async def test_a_summary_of_a_large_conversation_is_not_used_for_another_one() -> None:
    engine = TakesCuts(*[step for _ in range(2) for step in (SUMMARY, saying("Six."))])
    app = app_of(engine)
    headers = [header(await post(app, messages=[user(letter * 1_000_000), *HISTORY[1:]])) for letter in ("a", "b")]
    assert headers == ["made"] * 2
    assert [len(request.messages[0]["content"]) for request in engine.requests[::2]] == [1_000_000] * 2


async def test_a_conversation_that_grows_past_its_summary_is_compacted_again() -> None:
    engine = Engine(SUMMARY, saying("Six."), SUMMARY, saying("Ten."))
    app = app_of(engine)
    await post(app)
    response = await post(app, messages=[*HISTORY, assistant(LONG), user(LONG), assistant("9"), user("10")])
    assert header(response) == "made"
    assert engine.requests[2].messages[0] == STANDS_FOR_IT, "the second summary is made of the first one and the rest"
    assert engine.requests[3].messages == [STANDS_FOR_IT, assistant("9"), user("10")]


@pytest.mark.clause("3.52")
@pytest.mark.parametrize("options", [{}, {"compact_at": 1.0}])
async def test_a_conversation_that_fits_stays_as_it_is(options: Json) -> None:
    engine = Engine(saying("Six."))
    response = await post(MessagesApp(engine, keys=["a"], **options))
    assert header(response) is None
    assert engine.requests[0].messages == HISTORY


async def test_without_a_known_window_nothing_is_compacted() -> None:
    engine = ScriptedAnswers(saying("Six."))
    response = await post(MessagesApp(engine, keys=["a"], compact_at=0.5))
    assert header(response) is None


async def test_one_message_that_is_too_long_is_left_to_the_engine() -> None:
    engine = Engine(saying("Six."))
    await post(app_of(engine), messages=[user(LONG * 5)])
    assert engine.requests[0].messages == [user(LONG * 5)]


CALL: Json = {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "look", "input": {}}]}
RESULT: Json = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": LONG}]}


@pytest.mark.clause("3.52")
@pytest.mark.parametrize(
    ("messages", "most", "cut"),
    [
        ([user("1")], 100, 0),
        ([user("1"), CALL, RESULT], 100, 1),
        ([user("1"), CALL, RESULT, assistant("2"), user("3")], 100, 3),
        ([user("1"), assistant("2"), user("3")], 100, 1),
        ([user("1"), RESULT, RESULT], 100, 0),
    ],
)
def test_a_cut_parts_no_result_from_its_call(messages: list[Json], most: int, cut: int) -> None:
    assert run_to_end(_cut(messages, most)) == cut


def test_the_summaries_kept_are_bounded() -> None:
    async def never(*_: object) -> bool:
        return False

    compaction = AutoCompaction(Engine(), 0.5, never)
    for number in range(1_100):
        compaction._keep((None, b"", b"%d" % number), "x")
    assert len(compaction._summaries) == 1_000
    compaction._keep((None, b"", b"large"), "x" * (8 << 20))
    assert len(compaction._summaries) == 1


def test_the_summary_of_the_longest_beginning_is_found_without_looking_at_every_beginning() -> None:
    async def never(*_: object) -> bool:
        return False

    compaction = AutoCompaction(Engine(), 0.5, never)
    digests = bytes(range(250)) * 320  # of 10 000 messages
    for length in (8, 8 * 5_000, 8 * 9_999):
        compaction._keep((None, b"", digests[:length]), f"of {length}")
    compaction._keep((b"key", b"", digests), "of another key")
    compaction._keep((None, b"system", digests), "of another system prompt")
    compaction._keep((None, b"", digests[:-8] + b"another!"), "of another message")
    assert compaction._find(None, b"", digests) == (9_999, f"of {8 * 9_999}")
    assert compaction._find(None, b"", digests[: 8 * 7_000]) == (5_000, f"of {8 * 5_000}")
    assert compaction._find(None, b"", b"begins another way") == (0, None)
    seconds = min(_seconds(compaction, digests) for _ in range(5))
    assert seconds < 0.005  # it took 0.09 s when the digest of every beginning was looked up


def _seconds(compaction: AutoCompaction, digests: bytes) -> float:
    start = process_time()
    compaction._find(None, b"", digests)
    return process_time() - start
