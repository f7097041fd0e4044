"""Responses that are not of the API: web pages, redirects, errors without an end. Each is recognised, and soon."""

import asyncio

import pytest

from anthro_asgi.engines.shared import remote
from anthro_asgi.wire.errors import BadUpstream, InvalidRequest, RateLimited, UpstreamTimeout
from tests.support.upstream import ScriptedUpstream, Wire, raw_answer
from tests.support.upstream_engines import Speech, both_engines, over, said, stream

# pages


@both_engines
@pytest.mark.parametrize(
    "kind", ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xml", "image/png", "text/x", "?"]
)
async def test_a_web_page_is_refused_by_its_content_type_before_it_ends(speech: Speech, kind: str) -> None:
    async def page(wire: Wire) -> None:
        await wire.send(raw_answer(200, [("content-type", kind)], b"<html>\n\n"))
        await wire.gone()

    async with over(speech, page) as (upstream, engine):
        async with asyncio.timeout(5):
            with pytest.raises(BadUpstream, match="neither an event stream nor JSON"):
                await said(engine)
        await upstream.until(lambda: upstream.open <= 1)


@both_engines
@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/octet-stream", "TEXT/Event-Stream; charset=x"])
async def test_a_stream_with_an_unspecific_content_type_is_read(speech: Speech, kind: str | None) -> None:
    answer = stream(speech.begin(), speech.text("a"), speech.end())
    named = b"" if kind is None else b"content-type: %b\r\n" % kind.encode()
    async with over(speech, answer.replace(b"content-type: text/event-stream\r\n", named)) as (_, engine):
        assert "a" in await said(engine)


@both_engines
async def test_a_compressed_answer_is_refused(speech: Speech) -> None:
    answer = stream(speech.begin(), speech.text("a"), speech.end())
    for coding, fine in (("gzip", False), ("identity", True)):
        coded = answer.replace(b"content-type:", f"content-encoding: {coding}\r\ncontent-type:".encode(), 1)
        async with over(speech, coded) as (_, engine):
            if fine:
                assert "a" in await said(engine)
            else:
                with pytest.raises(BadUpstream, match="compressed"):
                    await said(engine)


# redirects


@both_engines
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(speech: Speech, status: int) -> None:
    async with ScriptedUpstream(stream(speech.begin(), speech.text("a"), speech.end())) as elsewhere:
        where = [("location", f"{elsewhere.url}{speech.path}"), ("content-length", "0")]
        async with over(speech, raw_answer(status, where)) as (upstream, engine):
            with pytest.raises(BadUpstream, match="redirect") as caught:
                await said(engine)
            assert [asked.method for asked in upstream.requests].count("POST") == 1
    assert (caught.value.status, elsewhere.requests) == (502, [])
    assert elsewhere.url not in caught.value.message


# refusals


@both_engines
async def test_an_error_response_without_an_end_keeps_its_status(speech: Speech) -> None:
    async def talk(wire: Wire) -> None:
        await wire.send(raw_answer(429, [("retry-after", "7")]))
        while True:
            await wire.send(b"x" * 10_000)

    async with over(speech, talk) as (upstream, engine):
        with pytest.raises(RateLimited) as caught:
            await said(engine)
        assert caught.value.headers == (("retry-after", "7"),)
        await upstream.until(lambda: upstream.open <= 1)
        assert upstream.requests[-1].wire.sent < 20_000_000  # as much as the kernel takes


@both_engines
async def test_a_slow_error_body_is_not_awaited_for_long(speech: Speech, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "_ERROR_BODY_TIMEOUT", 0.05)

    async def drip(wire: Wire) -> None:
        await wire.send(raw_answer(400, [("content-length", "1000")]))
        while True:
            await wire.send(b"x")
            await asyncio.sleep(0.01)

    async with over(speech, drip) as (upstream, engine):
        async with asyncio.timeout(5):
            with pytest.raises(InvalidRequest, match="the engine returned status 400"):
                await said(engine)
        await upstream.until(lambda: upstream.open <= 1)


@pytest.mark.slow
@both_engines
@pytest.mark.parametrize("length", ["5", "999"], ids=["too short", "too long"])
async def test_an_error_response_with_a_wrong_length_keeps_its_status(speech: Speech, length: str) -> None:
    body = b'{"error":{"message":"no"}}'
    refusal = raw_answer(504, [("content-length", length), ("connection", "close")], body)
    async with over(speech, refusal) as (_, engine):
        with pytest.raises(UpstreamTimeout):
            await said(engine)
