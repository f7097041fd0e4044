"""The golden transcripts: forty answers, byte for byte."""

import pytest

from anthro_asgi.conformance.grammar import check_stream, parse_events
from tests.replay import Case
from tests.replay.golden import GOLDEN, chosen, path, transcript


@pytest.mark.parametrize("case", chosen(), ids=str)
async def test_the_client_receives_the_bytes_of_the_golden_transcript(case: Case) -> None:
    assert await transcript(case) == path(case).read_bytes()


def test_there_are_forty_transcripts_with_at_least_one_of_each_engine() -> None:
    assert sorted(GOLDEN.glob("*.sse")) == sorted(map(path, chosen()))
    assert len(chosen()) == 40
    assert len({case.engine for case in chosen()}) == 6


@pytest.mark.clause("5.4")
@pytest.mark.parametrize("case", chosen(), ids=str)
def test_a_golden_stream_follows_the_grammar(case: Case) -> None:
    transcript = path(case).read_bytes()
    if transcript.startswith(b"event: "):
        check_stream(parse_events(transcript.replace(b"msg_ID", b"msg_" + b"i" * 24)))
    else:
        assert transcript[:4] in (b"400\n", b"502\n")
