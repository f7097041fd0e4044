"""What an engine says went wrong, and what a client is told of it."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.shared.upstream_errors import (
    EngineReport,
    classify,
    error_from_chunk,
    error_from_event,
    error_from_response,
)
from anthro_asgi.wire.errors import (
    ApiError,
    BadUpstream,
    ContextTooLong,
    EngineFailed,
    InvalidRequest,
    NotFound,
    Overloaded,
    PaymentRequired,
    RateLimited,
    RequestTooLarge,
    UpstreamTimeout,
)
from tests.replay import Case, cases


def body(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def report(error: ApiError) -> EngineReport:
    assert isinstance(error.__cause__, EngineReport)
    return error.__cause__


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, InvalidRequest, "engine words"),
        (401, EngineFailed, "the engine rejected this service's API key"),
        (403, EngineFailed, "the engine rejected this service's API key"),
        (404, NotFound, "engine words"),
        (402, PaymentRequired, "the engine's account has no credit for this request"),
        (405, BadUpstream, "the engine does not serve this API"),
        (408, UpstreamTimeout, "the engine took too long"),
        (413, RequestTooLarge, "engine words"),
        (422, InvalidRequest, "engine words"),
        (429, RateLimited, "engine words"),
        (500, EngineFailed, "the engine failed"),
        (501, EngineFailed, "the engine failed"),
        (502, Overloaded, "the engine cannot take a request now"),
        (503, Overloaded, "the engine cannot take a request now"),
        (504, UpstreamTimeout, "the engine took too long"),
        (529, Overloaded, "the engine cannot take a request now"),
        (302, BadUpstream, "the engine returned a redirect, which is not followed"),
        (204, BadUpstream, "the engine returned an invalid response"),
    ],
)
def test_a_status_becomes_its_error(status: int, kind: type[ApiError], told: str) -> None:
    """The client receives the engine's words about its request. All words are in the EngineReport, for the operator."""
    error = error_from_response(status, body("engine words"))
    assert (type(error), error.message) == (kind, told)
    assert (report(error).status, report(error).message) == (status, "engine words")


@pytest.mark.parametrize("status", [429, 502, 503, 529])
def test_retry_after_is_forwarded(status: int) -> None:
    assert error_from_response(status, b"", [(b"retry-after", b"17")]).headers == (("retry-after", "17"),)
    assert error_from_response(status, b"").headers == (() if status == 429 else (("retry-after", "1"),))


@pytest.mark.parametrize(
    "said",
    [
        b'{"error":{"message":"words","type":"x","code":400}}',
        b'{"error":"words"}',
        b'{"object":"error","message":"words","code":400}',
        b'{"detail":"words"}',
        b'{"message":"words"}',
        b'{"error":{"message":null,"detail":"words"}}',
        b'"words"',
        b"words\n",
    ],
)
def test_the_engines_words_are_found_in_every_shape(said: bytes) -> None:
    assert error_from_response(400, said).message == "words"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"  ",
        b"{}",
        b"null",
        b"<html><body>nginx 10.0.0.3</body></html>",
        b"\n <!DOCTYPE html>",
        b"\xef\xbb\xbf<html>",
        b"<center>nginx</center>",
        body("<html>nginx"),
        b"Traceback (most recent call last):\n  x",
        body('  File "/a/b.py", line 1'),
    ],
)
def test_a_body_without_usable_words_leaves_the_status(said: bytes) -> None:
    assert error_from_response(400, said).message == "the engine returned status 400"


def test_a_list_of_details_is_shown_unchanged() -> None:
    assert error_from_response(422, b'{"detail":[{"loc":["body","x"],"msg":"bad"}]}').message == (
        '[{"loc":["body","x"],"msg":"bad"}]'
    )


@pytest.mark.clause("7.14")
@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('bad\n\n  File "/opt/e/http_server.py", line 3\n  more', "bad"),
        ("bad\nTraceback (most recent call last):\n  x", "bad"),
        ("bad\n    at Object.<anonymous> (/srv/x.js:1)", "bad"),
        ("cannot open '/opt/engine/models/m.gguf': no", "cannot open '…': no"),
        ("no /home/me/x and /usr/lib/y", "no … and …"),
        ("bad request <html>inside", "bad request"),
        ("use /v1/completions or https://host/home/x", "use /v1/completions or https://host/home/x"),
        ("the model org/name is unknown", "the model org/name is unknown"),
        ("é" * 5000, "é" * 600),
    ],
)
def test_stacks_paths_and_length_are_trimmed(said: str, told: str) -> None:
    assert error_from_response(400, body(said)).message == told


def test_a_lone_surrogate_in_an_error_does_not_show_its_json() -> None:
    assert error_from_response(400, b'{"error":{"message":"bad \\ud83d"}}').message == "bad \ufffd"


# mistakes of the operator


@pytest.mark.clause("7.15")
@pytest.mark.parametrize(
    "said",
    [
        b'{"detail":"Not Found"}',
        b'{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}',
        b"404 page not found",
        b"<html><body><h1>404 Not Found</h1></body></html>",
        b"",
        b"{}",
        b"Cannot POST /v2/chat/completions",
        body("Invalid URL (POST /v2/chat/completions)"),
        body("No static resource v2/chat/completions."),
        b'{"error":"Unexpected endpoint or method. (POST /v2/chat/completions)"}',
        b'{"timestamp":"2026-11-29","status":404,"error":"Not Found","path":"/v2/chat/completions"}',
        body("The requested resource was not found"),
    ],
)
def test_a_missing_route_is_a_mistake_of_the_operator(said: bytes) -> None:
    error = error_from_response(404, said)
    assert (type(error), error.message) == (BadUpstream, "the engine does not serve this API")
    failure = classify(error, secrets=())
    assert failure.cause == "check the path in --upstream, which usually ends in /v1, and --upstream-api"
    assert (failure.kind, failure.error.reason) == ("status_4xx", "route_not_found")


@pytest.mark.parametrize(
    "said",
    [
        body("The model `x` does not exist or you do not have access to it.", code="model_not_found"),
        body('model "x" not found, try pulling it first'),
        body("The model 'org/x' was not found"),
        body("thread thread_1 not found"),
    ],
)
def test_a_missing_model_is_a_mistake_of_the_client(said: bytes) -> None:
    assert type(error_from_response(404, said)) is NotFound


@pytest.mark.clause("7.15")
@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_key_of_the_service_says_to_the_operator_what_to_set(status: int) -> None:
    failure = classify(error_from_response(status, body("no /v1/messages for you")), secrets=())
    assert (failure.error.status, failure.error.message) == (500, "the engine rejected this service's API key")
    assert failure.cause == "set the upstream's key with ANTHRO_ASGI_UPSTREAM_KEY or --upstream-key-file"


@pytest.mark.clause("7.9")
def test_an_account_without_credit_is_a_billing_error() -> None:
    for error in (
        error_from_response(402, body("Insufficient Balance")),
        error_from_chunk({"error": {"message": "Insufficient Balance", "code": 402}}),
        error_from_chunk({"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}),
        error_from_event({"type": "error", "error": {"type": "billing_error", "message": "x"}}),
    ):
        assert error is not None
        assert (error.status, error.type) == (402, "billing_error")
        assert report(error).message


# too long

RECORDED = cases(name="07_ctx", request="POST /v1/chat/completions", status=400) + cases(
    name="07b_ctx", request="POST /v1/chat/completions", status=400
)
LENGTHS = {
    "llamacpp": (2318, 1024),
    "vllm": (1025, 1024),
    "sglang": (2314, 1024),
    "llama-cpp-python": (2314, 1024),
    "max": (9120, 4096),
}


@pytest.mark.parametrize("case", RECORDED, ids=str)
def test_every_recorded_overflow_gets_the_words_that_clients_compact_on(case: Case) -> None:
    error = error_from_response(case.status, case.content)
    tokens, maximum = LENGTHS[case.engine]
    assert type(error) is ContextTooLong
    assert error.message == f"prompt is too long: {tokens} tokens > {maximum} maximum"


def test_the_recordings_hold_an_overflow_of_each_engine_that_refuses_one() -> None:
    assert {case.engine for case in RECORDED} == set(LENGTHS)


@pytest.mark.parametrize(
    ("said", "tokens", "maximum"),
    [
        (
            "This model's maximum context length is 8 tokens. However, you requested 12 tokens (9 in the messages, "
            "3 in the completion).",
            9,
            8,
        ),
        ("This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens.", 9, 8),
        (
            "Requested token count exceeds the model's maximum context length of 8 tokens. You requested a total of "
            "12 tokens: 9 tokens from the input messages and 3 tokens for the completion.",
            9,
            8,
        ),
        ("request (8 tokens) exceeds the available context size (8 tokens), try increasing it", 8, 8),
        ("prompt is too long: 9 tokens > 8 maximum", 9, 8),
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_other_wordings_of_an_overflow_are_recognised(said: str, tokens: int, maximum: int, status: int) -> None:
    assert error_from_response(status, body(said)).message == f"prompt is too long: {tokens} tokens > {maximum} maximum"


@pytest.mark.clause("7.6")
@pytest.mark.parametrize("more", [{"code": "context_length_exceeded"}, {"type": "exceed_context_size_error"}])
def test_an_overflow_known_only_by_its_code_has_no_numbers(more: Any) -> None:
    assert error_from_response(400, body("too much", **more)).message == "prompt is too long"


@pytest.mark.parametrize("case", cases(name="07c", request="POST /v1/chat/completions", status=400), ids=str)
def test_a_recorded_rejection_of_max_tokens_is_not_an_overflow(case: Case) -> None:
    error = error_from_response(case.status, case.content)
    assert type(error) is InvalidRequest
    assert error.message.startswith("max_")


@pytest.mark.parametrize(
    "said",
    [
        "This model's maximum context length is 8 tokens. However, you requested 12 tokens (5 in the messages, "
        "7 in the completion).",
        "'max_tokens' is too large: 12. This model's maximum context length is 8 tokens and your request has 5 input "
        "tokens (12 > 8 - 5).",
        "Requested token count exceeds the model's maximum context length of 8 tokens. You requested a total of "
        "12 tokens: 5 tokens from the input messages and 7 tokens for the completion.",
    ],
)
def test_a_prompt_that_fits_is_not_called_too_long(said: str) -> None:
    error = error_from_response(400, body(said, code="context_length_exceeded"))
    assert (type(error), error.message) == (InvalidRequest, said)


def test_an_input_that_the_model_cannot_read_is_an_invalid_request() -> None:
    (case,) = cases("llamacpp", name="08i_image", status=500)
    error = error_from_response(case.status, case.content)
    words = "messages: could not process image: image input is not supported by this model"
    assert (type(error), error.message) == (InvalidRequest, words)


@pytest.mark.clause("7.8")
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, "image", "At most 0 image(s) may be provided in one prompt."),
        (400, "video", "At most 0 video(s) may be provided in one prompt."),
        (400, "image", "At most 3 image(s) may be provided in one prompt."),
        (400, "image", "Failed to load image: cannot identify image file <_io.BytesIO object>"),
        (400, "image", "failed to decode image bytes"),
        (400, "audio", "Unable to process audio: unknown format"),
        (400, "image", "invalid image data"),
        (400, "image", "local is not a multimodal model"),
        (400, "image", "This model does not support vision"),
        (400, "image", "Multimodal input is not supported by this model"),
        (400, "image", "Invalid content type. image_url is only supported by certain models."),
        (400, "image", "Model only supports text input; received unsupported content type 'image_url'"),
        (400, "video", "received unsupported content type 'video_url'"),
        (400, "image", "this model does not support image input"),
        (400, "image", "missing data required for image input"),
        (400, "image", "Failed to deserialize the JSON body: unknown variant `image_url`, expected `text`"),
        (404, "image", "No endpoints found that support image input"),
    ],
)
def test_words_about_unreadable_input_make_clients_remove_it(status: int, kind: str, words: str) -> None:
    error = error_from_response(status, body(words))
    assert (type(error), error.message) == (InvalidRequest, f"messages: could not process {kind}: {words}")


@pytest.mark.parametrize(
    "words",
    [
        "At most 10 tools may be provided in one prompt.",
        "Failed to process the request: an image server is down",
        "The model does not support tools.",
        "messages.0: the image of this model is private",
        "unsupported content type 'text_url'",
    ],
)
def test_words_about_something_else_stay_as_they_are(words: str) -> None:
    assert error_from_response(400, body(words)).message == words


@pytest.mark.clause("7.4")
@pytest.mark.parametrize("case", [case for case in cases() if case.status >= 400], ids=str)
def test_no_recorded_error_shows_internals_of_an_engine(case: Case) -> None:
    error = error_from_response(case.status, case.content)
    assert error.message
    assert len(error.message) <= 600
    for inner in ("/opt/engine", "Traceback", 'File "', "<html"):
        assert inner not in error.message + report(error).message
    if case.status >= 500 and not isinstance(error, InvalidRequest):
        assert error.message == "the engine failed"


# in a stream


@pytest.mark.parametrize(
    "chunk",
    [{}, {"choices": []}, {"choices": [{}], "error": None}, {"choices": [], "detail": "x"}, {"object": "chat.chunk"}],
)
def test_a_chunk_without_an_error_gives_none(chunk: Any) -> None:
    assert error_from_chunk(chunk) is None


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (400, InvalidRequest),
        ("404", NotFound),
        (429, RateLimited),
        (503, Overloaded),
        (200, EngineFailed),
        (None, EngineFailed),
        ("rate_limit", RateLimited),
        ("odd", EngineFailed),
        (True, EngineFailed),
        ("99999", EngineFailed),
    ],
)
def test_an_error_chunk_becomes_the_error_of_its_code(code: Any, kind: type[ApiError]) -> None:
    assert type(error_from_chunk({"error": {"message": "x", "code": code}})) is kind
    assert type(error_from_chunk({"object": "error", "message": "x", "code": code})) is kind


def told_by(chunk: dict[str, Any]) -> tuple[int, str] | None:
    error = error_from_chunk(chunk)
    return None if error is None else (error.status, error.type)


@pytest.mark.clause("6.12")
@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"error": {"type": "rate_limit_error", "code": "rate_limit_exceeded"}}, (429, "rate_limit_error")),
        ({"error": {"type": "requests", "code": "rate_limit_exceeded"}}, (429, "rate_limit_error")),
        ({"error": {"type": "invalid_request_error", "code": None, "message": "bad"}}, (400, "invalid_request_error")),
        ({"error": {"type": "overloaded_error"}}, (529, "overloaded_error")),
        ({"error": {"type": "service_unavailable_error"}}, (529, "overloaded_error")),
        ({"error": {"code": "429"}}, (429, "rate_limit_error")),
        (
            {"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "x"}}},
            (429, "rate_limit_error"),
        ),
        ({"error": {"code": 8, "status": "RESOURCE_EXHAUSTED", "message": "x"}}, (429, "rate_limit_error")),
        ({"error": "model is loading"}, (529, "overloaded_error")),
        ({"error": {"type": "server_error"}}, (500, "api_error")),
        ({"base_resp": {"status_code": 1002, "status_msg": "rate limit"}}, (429, "rate_limit_error")),
        (
            {"base_resp": {"status_code": 2013, "status_msg": "invalid params"}, "choices": None},
            (400, "invalid_request_error"),
        ),
        ({"base_resp": {"status_code": 1000, "status_msg": "unknown"}}, (500, "api_error")),
        ({"code": "InvalidParameter", "message": "bad", "request_id": "r"}, (400, "invalid_request_error")),
        ({"code": "Throttling.RateQuota", "message": "slow"}, (429, "rate_limit_error")),
        ({"code": 500, "msg": "upstream"}, (500, "api_error")),
        ({"code": 429, "msg": "slow"}, (429, "rate_limit_error")),
    ],
)
def test_an_error_inside_a_response_has_the_status_of_its_words(
    chunk: dict[str, Any], expected: tuple[int, str]
) -> None:
    assert told_by(chunk) == expected


@pytest.mark.parametrize(
    "chunk",
    [
        {"base_resp": {"status_code": 0, "status_msg": ""}, "choices": None},
        {"base_resp": {"status_code": 0}, "choices": [{"delta": {"content": "a"}}]},
        {"code": 0, "msg": "success"},
        {"code": "x", "message": "y", "choices": [{"delta": {"content": "a"}}]},
        {"choices": [], "usage": {}},
    ],
)
def test_a_chunk_with_a_success_code_or_content_is_not_an_error(chunk: dict[str, Any]) -> None:
    assert told_by(chunk) is None


def test_the_words_of_a_vendors_error_about_the_request_reach_the_client() -> None:
    for chunk in (
        {"base_resp": {"status_code": 2013, "status_msg": "bad temperature"}},
        {"code": "InvalidParameter", "message": "bad temperature"},
        {"code": 400, "msg": "bad temperature"},
    ):
        error = error_from_chunk(chunk)
        assert error is not None
        assert error.message == "bad temperature"
