"""What an engine's refusal says of the request it would have taken."""

import json
from typing import Any

import pytest

from anthro_asgi.engines.openai.retry import is_about_a_value, rejected_field, wants_new_length_field
from anthro_asgi.engines.shared.answer_length import shorter_answer
from anthro_asgi.engines.shared.upstream_errors import error_from_response
from anthro_asgi.wire.errors import ContextTooLong
from tests.replay import cases

Json = dict[str, Any]


def refusal(engine: str, name: str) -> str:
    (case,) = cases(engine, name=name)
    return error_from_response(case.status, case.content).message


@pytest.mark.parametrize(
    ("words", "longest"),
    [
        (refusal("vllm", "07c_maxtok_gt_ctx_stream"), 1024),
        (refusal("sglang", "07c_maxtok_gt_ctx_stream"), 1024),
        (
            "Requested token count exceeds the model's maximum context length of 1024 tokens. You requested a total "
            "of 1033 tokens: 9 tokens from the input messages and 1024 tokens for the completion. Please reduce the",
            1014,
        ),
        (
            "This model's maximum context length is 1024 tokens. However, you requested 4105 tokens (9 in the "
            "messages, 4096 in the completion). Please reduce the length of the messages or completion.",
            1015,
        ),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 4096. This model's maximum context length is 1024 "
            "tokens and your request has 9 input tokens (4096 > 1024 - 9).",
            1015,
        ),
        (
            "max_tokens is too large: 4096. This model supports at most 2048 completion tokens, whereas you provided "
            "4096.",
            2048,
        ),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 2048]", 2048),
        ("`max_tokens` must be less than or equal to `2048`, the maximum value for `max_tokens`", 2048),
        (
            "The sum of prompt length (9) and query length (0) max_tokens (4096) should not exceed max_seq_len (1024)",
            1015,
        ),
        (
            "`inputs` tokens + `max_new_tokens` must be <= 1024. Given: 9 `inputs` tokens and 4096 `max_new_tokens`",
            1015,
        ),
    ],
)
def test_the_longest_answer_that_fits_is_requested_instead(words: str, longest: int) -> None:
    assert shorter_answer(4096, words) == longest


@pytest.mark.parametrize("prompt", [1023, 1024, 5000])
def test_a_prompt_that_leaves_no_room_is_too_long(prompt: int) -> None:
    words = f"maximum context length of 1024 tokens. You requested {prompt} tokens from the input messages and 1 for"
    with pytest.raises(ContextTooLong, match=rf"prompt is too long: {prompt} tokens > 1022 maximum"):
        shorter_answer(4096, words)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "max_tokens must be at least 1, got 0.",
        "This model supports at most 4096 completion tokens",
        "This model supports at most 9999 completion tokens",
        "messages: the context length of this is 12 tokens",
    ],
)
def test_a_rejection_for_another_reason_is_not_about_the_length(words: str) -> None:
    assert shorter_answer(4096, words) is None


def test_the_new_name_of_max_tokens_is_used_where_only_that_is_known() -> None:
    words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
    assert wants_new_length_field({"max_tokens": 4096}, words)
    assert not wants_new_length_field({"max_completion_tokens": 4096}, words)
    assert not wants_new_length_field({"max_tokens": 4096}, "max_tokens is too large")


FIELDS: Json = {
    "user": "u",
    "stream_options": {},
    "thinking_token_budget": 4,
    "chat_template_kwargs": {},
    "reasoning_effort": "low",
    "top_k": 4,
}


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (
            "thinking_token_budget is set but reasoning_config is not configured. Please set --reasoning-parser and/or",
            "thinking_token_budget",
        ),
        ("Unexpected fields in the request: {'stream_options'}", "stream_options"),
        ("Unrecognized request argument supplied: user", "user"),
        ('[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs are not permitted"}]', "user"),
        ("The chat template does not use these chat_template_kwargs: enable_thinking", "chat_template_kwargs"),
        ('"llama3.2" does not support thinking', "reasoning_effort"),
        ('invalid reasoning value: \'none\' (must be "high", "medium", or "low")', "reasoning_effort"),
        ("the last user message is empty", None),
        ("Unexpected fields in the request: {'top_k'}", None),
        ("", None),
    ],
)
def test_a_rejected_comfort_field_is_left_out(words: str, field: str | None) -> None:
    assert rejected_field(FIELDS, words) == field


@pytest.mark.parametrize(
    ("words", "field", "about_value"),
    [
        ("thinking_token_budget is set but reasoning_config is not configured.", "thinking_token_budget", False),
        ("Unrecognized request argument supplied: user", "user", False),
        ('[{"type":"extra_forbidden","loc":["body","user"],"msg":"Extra inputs are not permitted"}]', "user", False),
        ('"llama3.2" does not support thinking', "reasoning_effort", False),
        ("Invalid value for parameter chat_template_kwargs", "chat_template_kwargs", False),
        ('invalid reasoning value: \'low\' (must be "high", "medium", or "none")', "reasoning_effort", True),
        ("Unsupported value: 'low' is not supported with this model.", "reasoning_effort", True),
        ("reasoning_effort: unsupported", "reasoning_effort", False),
        ("top_k must be -1 or at least 1", "top_k", True),
        ("invalid top_k", "top_k", True),
    ],
)
def test_a_refused_value_is_not_a_refused_field(words: str, field: str, about_value: bool) -> None:
    assert is_about_a_value(FIELDS, field, words) is about_value


def test_what_the_engine_quotes_of_a_value_says_nothing_about_the_field() -> None:
    assert is_about_a_value({"user": "unsupported"}, "user", "parameter 'user': bad input 'unsupported'")


def test_a_field_that_was_not_sent_cannot_be_left_out() -> None:
    assert rejected_field({"model": "m"}, "thinking_token_budget is not supported") is None


def test_the_recorded_rejections_name_the_fields_that_were_sent() -> None:
    (case,) = cases("transformers", name="06f_thinking_budget")
    words = error_from_response(case.status, case.content).message
    assert rejected_field(case.body, words) == "thinking_budget_tokens"
    assert not is_about_a_value(case.body, "thinking_budget_tokens", words)
    (case,) = cases("vllm-noreason", name="06f_thinking_budget")
    words = json.loads(case.content.split(b"\n")[0].removeprefix(b"data: "))["error"]["message"]
    assert rejected_field(case.body, words) == "thinking_token_budget"
    assert not is_about_a_value(case.body, "thinking_token_budget", words)
