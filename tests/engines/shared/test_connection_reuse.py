"""Which response ends the use of its connection, whichever API the engine has."""

import pytest

from anthro_asgi.wire.errors import ApiError
from tests.support.upstream import json_answer, raw_answer
from tests.support.upstream_engines import Speech, both_engines, over, said, stream

PAGE = raw_answer(200, [("content-type", "text/html"), ("content-length", "6")], b"<html>")
NO_ANSWERS = {
    "an empty object": json_answer(200, {}),
    "a page": PAGE,
    "no content": raw_answer(204, [], b""),
    "a refusal": json_answer(400, {"error": {"message": "no"}}),
    "a failure": json_answer(500, {}),
    "an empty stream": stream(),
}


@both_engines
@pytest.mark.parametrize("kind", NO_ANSWERS)
async def test_a_connection_that_gave_no_answer_is_not_used_again(speech: Speech, kind: str) -> None:
    """Otherwise the clients behind a surplus of an earlier response would receive each other's answers."""
    good = stream(speech.begin(), speech.text("Hi"), speech.end())
    async with over(speech, good, good, NO_ANSWERS[kind], good) as (upstream, engine):
        for _ in range(2):
            assert "Hi" in await said(engine)
        before = upstream.accepted
        with pytest.raises(ApiError):
            await said(engine)
        assert upstream.accepted == before
        assert "Hi" in await said(engine)
        assert upstream.accepted == before + 1
