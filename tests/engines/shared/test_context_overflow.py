"""How engines say that a prompt does not fit."""

import pytest

from anthro_asgi.engines.shared.answer_length import answer_beside, shorter_answer
from anthro_asgi.engines.shared.context_overflow import PromptBound, find_bound, find_overflow
from anthro_asgi.wire.errors import ContextTooLong

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
        (
            "This model's maximum context length is 131072 tokens. However, you requested 140000 tokens (139000 in the "
            "messages, 1000 in the completion).",
            139000,
            131072,
        ),
        (
            "Invalid request: Your request exceeded model token limit: 262144 (requested: 291244)",
            291244,
            262144,
        ),
        (
            "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
            537812,
            131072,
        ),
        (
            "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
            1196265,
            1048575,
        ),
        ("prompt token count of 128006 exceeds the limit of 128000", 128006, 128000),
        (
            "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 13055>= "
            "n_ctx: 4096). Try to load the model with a larger context length",
            13055,
            4096,
        ),
        (
            "Trying to keep the first 10136 tokens when context the overflows. However, the model is loaded with "
            "context length of only 7866 tokens, which is not enough.",
            10136,
            7866,
        ),
        ("Prompt length 9000 is greater than max_seq_len 8192", 9000, 8192),
        ("input length and `max_tokens` exceed context limit: 200001 + 1 > 200000", 200001, 200000),
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
        ("too much", "model_max_prompt_tokens_exceeded"),
        ("too much", "1261"),
        ("Your input exceeds the context window of this model. Please adjust your input and try again.", ""),
        ("Prompt exceeds max length", ""),
        ("invalid params, context window exceeds limit (2013)", ""),
        ("Please reduce the length of the messages or completion.", ""),
        ("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]", ""),
        (
            "litellm.ContextWindowExceededError: litellm.BadRequestError: Requested token count exceeds the model's "
            "maximum context length of 131072 tokens.",
            "",
        ),
        ("Context size has been exceeded.", ""),
        ("Input is too long for requested model.", ""),
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


OTHER_LENGTHS = [
    "Invalid 'messages[1].content': string too long. Expected a string with maximum length 10485760, but got a string "
    "with length 10485761 instead.",
    "Invalid 'tools[0].function.description': string too long. Expected a string with maximum length 1024, but got a "
    "string with length 5000 instead.",
    "tools.0.function.name: String should have at most 64 characters",
    "stop: too many stop sequences, at most 4 are allowed",
    "The prompt must not be empty; its length must be at least 1 token",
    "Request too large for model `m` on tokens per minute (TPM): Limit 6000, Requested 9000, please reduce your "
    "message size and try again.",
    "temperature: Input should be less than or equal to 2",
    "top_k must be less than or equal to 1000",
    "top_logprobs must be less than or equal to 20 when max_tokens is set",
    "max_tokens and n: n must be at most 8",
    "max_tokens must be at least 1, got 0.",
    "The length of the schema name must not exceed 64",
    "image exceeds 5 MB maximum: 5316852 bytes > 5242880 bytes",
    "messages: the context length of this is 12 tokens",
    "Tool call id was abc but must be a-z, A-Z, 0-9, with a length of 9.",
    "At most 0 image(s) may be provided in one prompt.",
    "Input should be less than or equal to 2",
    "context_length must be greater than 0",
]


@pytest.mark.clause("7.7")
@pytest.mark.parametrize("words", OTHER_LENGTHS)
def test_a_refusal_about_another_length_is_neither_an_overflow_nor_a_reason_to_shorten_the_answer(words: str) -> None:
    assert find_overflow(words, "invalid_request_error") is None
    assert shorter_answer(32000, words) is None
    assert find_bound(words) is None


# only a bound of the prompt's length

TOKENS_025 = (
    "This model's maximum context length is 32768 tokens. However, you requested 32000 output tokens and your prompt "
    "contains at least 769 input tokens, for a total of at least 32769 tokens. Please reduce the length of the input "
    "prompt or the number of requested output tokens. (parameter=input_tokens, value=769)"
)
CHARACTERS_025 = (
    "This model's maximum context length is 32768 tokens. However, you requested 32000 output tokens and your prompt "
    "contains 99000 characters (more than 6144 characters, which is the upper bound for 768 input tokens). Please "
    "reduce the length of the input prompt or the number of requested output tokens."
)
TOKENS_016 = (
    "You passed 769 input tokens and requested 32000 output tokens. However, the model's context length is only 32768 "
    "tokens, resulting in a maximum input length of 768 tokens. Please reduce the length of the input prompt."
)
CHARACTERS_016 = (
    "You passed 90000 input characters and requested 32000 output tokens. However, the model's context length is only "
    "32768 tokens, resulting in a maximum input length of 768 tokens (at most 6144 characters). Please reduce the "
    "length of the input prompt."
)


@pytest.mark.clause("7.7")
@pytest.mark.parametrize(
    ("words", "at_least"),
    [(TOKENS_025, 769), (CHARACTERS_025, 12375), (TOKENS_016, 769), (CHARACTERS_016, 11250)],
)
def test_a_bound_of_the_prompt_is_not_taken_for_its_length(words: str, at_least: int) -> None:
    assert find_overflow(words, "BadRequestError") is None
    assert shorter_answer(32000, words) is None
    bound = find_bound(words)
    assert bound is not None
    assert (bound.at_least, bound.window, bound.too_long) == (at_least, 32768, False)


@pytest.mark.clause("7.7")
def test_characters_that_no_window_of_tokens_holds_are_an_overflow_without_numbers() -> None:
    words = CHARACTERS_016.replace("90000", "900000")
    assert str(find_overflow(words, "")) == "prompt is too long"


BOUND = PromptBound(769, 32768, 769)


def test_the_answer_becomes_as_long_as_the_counted_prompt_leaves_room() -> None:
    assert answer_beside(BOUND, 32000, 20000, 5) == 12768
    assert answer_beside(BOUND, 32000, 32767, 5) == 1
    with pytest.raises(ContextTooLong, match="prompt is too long: 40000 tokens > 32768 maximum"):
        answer_beside(BOUND, 32000, 40000, 5)
    with pytest.raises(ContextTooLong, match="prompt is too long: 32768 tokens > 32767 maximum"):
        answer_beside(BOUND, 32000, 32768, 5)


def test_an_estimated_prompt_gets_a_margin_and_the_answer_shrinks_in_few_steps() -> None:
    assert answer_beside(BOUND, 32000, None, 15000) == 32768 - 20000
    assert answer_beside(BOUND, 12768, None, 15000) == 1596
    assert answer_beside(BOUND, 32000, None, 90000) == 4000
    assert answer_beside(BOUND, 32000, 700, 90000) == 4000  # the count cannot be right
    with pytest.raises(ContextTooLong, match=r"^prompt is too long$"):
        answer_beside(BOUND, 199, None, 90000)


@pytest.mark.clause("7.7")
@pytest.mark.parametrize(
    ("words", "longest"),
    [
        ("Range of max_tokens should be [1, 16384]", 16384),
        (
            "The parameter `max_tokens` specified in the request are not valid: integer above maximum value, expected "
            "a value <= 12288, but got 32000 instead.",
            12288,
        ),
        (
            "Invalid 'max_tokens': integer above maximum value. Expected a value <= 16384, but got 32000 instead.",
            16384,
        ),
        ("max_tokens is too large: 32000. This model supports at most 16384 completion tokens", 16384),
        ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", 8192),
        ("`max_tokens` must be less than or equal to `8192`", 8192),
        ("max_tokens: 32000 > 16384, which is the maximum allowed number of output tokens for m", 16384),
        ("Input should be less than or equal to 16384", 16384),
        ("input length and `max_tokens` exceed context limit: 197202 + 21333 > 200000", 2798),
    ],
)
def test_a_limit_of_the_answer_is_read(words: str, longest: int) -> None:
    assert find_overflow(words, "invalid_request_error") is None
    assert shorter_answer(32000, words) == longest
