"""How engines say that a prompt does not fit."""

import pytest

from anthro_asgi.engines.shared.context_overflow import find_overflow

TENSORRT = (
    "`default_max_tokens` (-152) must be greater than 0, `default_max_tokens` (-152) = max_seq_len (8192) - "
    "`splited_prompt_len` (8000) - `query_token_len` (344)"
)


@pytest.mark.parametrize(
    ("words", "tokens", "maximum"),
    [
        ("request (2318 tokens) exceeds the available context size (1024 tokens), try increasing it", 2318, 1024),
        ("The input (2314 tokens) is longer than the model's context length (1024 tokens).", 2314, 1024),
        ("Input length (265330) exceeds model's maximum context length (262144).", 265330, 262144),
        ("Input length 100000 exceeds the maximum allowed input length of 65536 tokens.", 100000, 65536),
        ("This model's maximum context length is 8 tokens. However, your messages resulted in 9 tokens.", 9, 8),
        (
            "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000 tokens.",
            300000,
            272000,
        ),
        (TENSORRT, 8344, 8192),
        (TENSORRT.partition(" - `query")[0].replace("8000", "9000"), 9000, 8192),
        ("The sum of prompt length (72417.0), query length (0) should not exceed max_num_tokens (69632)", 72417, 69632),
        ("`prompt_token_ids` length (2314) is greater than `max_seq_len` (1024)", 2314, 1024),
        (
            "Requested generation length 1 is not possible! The provided prompt is 10000 tokens long, so generating 1 "
            "tokens requires a sequence length of 10001, but the maximum supported sequence length is just 8192!",
            10000,
            8192,
        ),
        ("`inputs` must have less than 1024 tokens. Given: 2314", 2314, 1024),
        (
            "Prompt contains 65673 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            65673,
            32768,
        ),
        ("prompt is too long: 9 tokens > 8 maximum", 9, 8),
    ],
)
def test_an_overflow_with_both_numbers_shows_both(words: str, tokens: int, maximum: int) -> None:
    assert str(find_overflow(words, "")) == f"prompt is too long: {tokens} tokens > {maximum} maximum"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("prompt too long; exceeded max context length by 512 tokens", ""),
        ("the request exceeds the available context size, try increasing it", ""),
        ("tokens to keep from the initial prompt is greater than the context length", ""),
        ("too much", "context_length_exceeded"),
        ("too much", "exceed_context_size_error"),
    ],
)
def test_an_overflow_without_numbers_shows_the_phrase_alone(words: str, code: str) -> None:
    assert str(find_overflow(words, code)) == "prompt is too long"


@pytest.mark.parametrize(
    "words",
    [
        "",
        "max_tokens=4096 cannot be greater than max_model_len=1024. Please request fewer output tokens.",
        "max_completion_tokens is too large: 4096.This model supports at most 1024 completion tokens.",
        "maximum context length is 1024 tokens. However, you requested 4105 tokens (9 in the messages, 4096 in the",
        "Requested token count exceeds the model's maximum context length of 1024 tokens. You requested a total of "
        "1033 tokens: 9 tokens from the input messages and 1024 tokens for the completion.",
    ],
)
def test_an_answer_that_does_not_fit_is_not_an_overflow_of_the_prompt(words: str) -> None:
    assert find_overflow(words, "BadRequestError") is None
