"""The errors of the Messages API, row by row, and their three forms: headers, body and event."""

import orjson
import pytest

from anthro_asgi.wire.errors import (
    AnswerTooLarge,
    ApiError,
    BadUpstream,
    ContextTooLong,
    EngineFailed,
    HeadersTooLarge,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    PaymentRequired,
    PermissionDenied,
    RateLimited,
    RequestTimeout,
    RequestTooLarge,
    Unauthenticated,
    UnsupportedEncoding,
    UpstreamTimeout,
    quoted,
)

TABLE = [
    (InvalidRequest("m"), 400, "invalid_request_error"),
    (ContextTooLong(2, 1), 400, "invalid_request_error"),
    (Unauthenticated("m"), 401, "authentication_error"),
    (PaymentRequired("m"), 402, "billing_error"),
    (PermissionDenied("m"), 403, "permission_error"),
    (NotFound("m"), 404, "not_found_error"),
    (MethodNotAllowed("m"), 405, "invalid_request_error"),
    (RequestTooLarge("m"), 413, "request_too_large"),
    (UnsupportedEncoding("m"), 415, "invalid_request_error"),
    (RateLimited("m"), 429, "rate_limit_error"),
    (RequestTimeout("m"), 408, "invalid_request_error"),
    (HeadersTooLarge("m"), 431, "invalid_request_error"),
    (InternalError("m"), 500, "api_error"),
    (EngineFailed("m"), 500, "api_error"),
    (BadUpstream("m"), 502, "api_error"),
    (AnswerTooLarge("m"), 502, "api_error"),
    (UpstreamTimeout("m"), 504, "timeout_error"),
    (Overloaded("m"), 529, "overloaded_error"),
]


@pytest.mark.clause("7.5")
@pytest.mark.parametrize(("error", "status", "kind"), TABLE, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status_and_type(error: ApiError, status: int, kind: str) -> None:
    assert error.status == status
    assert orjson.loads(error.body("req_1")) == {
        "type": "error",
        "error": {"type": kind, "message": error.message},
        "request_id": "req_1",
    }


def test_the_table_lists_every_error_class() -> None:
    def family(root: type[ApiError]) -> set[type[ApiError]]:
        return {root}.union(*map(family, root.__subclasses__()))

    of_the_service = {one for one in family(ApiError) if not one.__module__.startswith("anthro_asgi.testing")}
    assert of_the_service - {ApiError} == {type(error) for error, _, _ in TABLE}


def test_a_failure_of_the_engine_is_not_an_internal_error() -> None:
    for error in (BadUpstream, AnswerTooLarge, UpstreamTimeout):
        assert issubclass(error, EngineFailed)
    assert not issubclass(EngineFailed, InternalError)


def test_each_failure_of_an_engine_has_a_reason_for_the_log() -> None:
    errors = (EngineFailed("m"), BadUpstream("m"), AnswerTooLarge("m"), UpstreamTimeout("m"), ContextTooLong(2, 1))
    assert [error.reason for error in errors] == [
        "failed",
        "invalid_response",
        "too_large",
        "timeout",
        "context_too_long",
    ]
    assert BadUpstream("m", reason="broken").reason == "broken"
    assert BadUpstream("m").reason == "invalid_response"


@pytest.mark.clause("7.1")
@pytest.mark.parametrize(
    ("value", "text"),
    [("a" * 1_000_000, f"'{'a' * 9}"), ("it's", '"it\'s"'), ({"a": 1}, "an object"), ([1], "an array"), (7, "7")],
    ids=["a long text", "a text", "an object", "an array", "a number"],
)
def test_a_value_from_outside_is_quoted_in_part(value: object, text: str) -> None:
    assert quoted(value, 10) == text


def test_the_envelope_is_these_bytes() -> None:
    assert NotFound("no «x»").body("req_9") == (
        '{"type":"error","error":{"type":"not_found_error","message":"no «x»"},"request_id":"req_9"}'.encode()
    )


@pytest.mark.clause("7.1")
def test_details_are_present_only_with_an_error_code() -> None:
    told = orjson.loads(InvalidRequest("m", error_code="unsupported_tool_type").body("req_1"))
    assert told["error"]["details"] == {"error_code": "unsupported_tool_type"}
    assert "details" not in orjson.loads(InvalidRequest("m").body("req_1"))["error"]


def test_the_error_event_holds_the_same_envelope() -> None:
    error = RateLimited("slow\ndown\u2028", error_code="x")
    assert error.frame("req_1") == b"event: error\ndata: " + error.body("req_1") + b"\n\n"
    assert error.frame("req_1").count(b"\n") == 3


@pytest.mark.clause("7.11")
def test_overloaded_has_a_retry_after_header_in_whole_seconds() -> None:
    assert Overloaded().headers == (("retry-after", "1"),)
    assert Overloaded("m", retry_after=30).headers == (("retry-after", "30"),)


def test_headers_of_an_upstream_are_passed_on_with_its_error() -> None:
    assert RateLimited("m", headers=(("retry-after", "7"),)).headers == (("retry-after", "7"),)
    assert InvalidRequest("m").headers == ()


def test_the_text_of_a_prompt_that_is_too_long_is_the_one_clients_recognise() -> None:
    assert ContextTooLong(210_000, 200_000).message == "prompt is too long: 210000 tokens > 200000 maximum"


@pytest.mark.parametrize(("tokens", "maximum"), [(None, 8), (8, None), (None, None)])
def test_the_text_begins_the_same_without_token_counts(tokens: int | None, maximum: int | None) -> None:
    assert ContextTooLong(tokens, maximum).message == "prompt is too long"


def test_a_lone_surrogate_in_a_message_does_not_break_the_error() -> None:
    assert orjson.loads(InvalidRequest("model: '\ud83d'").body("req_1"))["error"]["message"] == "model: '\ufffd'"


def test_str_of_an_error_is_its_message() -> None:
    assert str(BadUpstream("the engine broke off")) == "the engine broke off"
