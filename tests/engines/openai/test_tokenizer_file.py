"""A tokenizer file counts every part of a prompt, for engines that cannot count."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from anthro_asgi.engines.openai.tokenizer_file import TokenizerFile
from tests.support.chat_requests import assistant, request, result, text, use, user

PIXEL = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
A_TURN = 4
AN_IMAGE = 1500


def write_tokenizer(path: Path) -> Path:
    """A tokenizer file that splits at white space."""
    model = {"type": "WordLevel", "vocab": {"?": 0, "a": 1}, "unk_token": "?"}
    parts = {"truncation": None, "padding": None, "normalizer": None, "post_processor": None, "decoder": None}
    splits = {"type": "WhitespaceSplit"}
    file: dict[str, Any] = {"version": "1.0", "added_tokens": [], **parts, "pre_tokenizer": splits, "model": model}
    path.write_text(json.dumps(file))
    return path


@pytest.fixture
def count(tmp_path: Path) -> TokenizerFile:
    return TokenizerFile(str(write_tokenizer(tmp_path / "tokenizer.json")))


HI = 2 * A_TURN + 1  # one message, and the beginning of the answer


@pytest.mark.clause("10.4")
def test_texts_and_turns_are_counted(count: TokenizerFile) -> None:
    assert count(request(user("a"))) == HI
    assert count(request(user("a b  c\nd"))) == HI + 3
    assert count(request(user("a"), system="b c")) == HI + A_TURN + 2
    assert count(request(user("a"), assistant("b"), user("c"))) == HI + 2 * (A_TURN + 1)


def test_a_message_with_an_empty_text_still_counts(count: TokenizerFile) -> None:
    assert count(request(user(""))) == HI - 1


@pytest.mark.clause("10.4")
def test_tools_calls_and_results_are_counted(count: TokenizerFile) -> None:
    called = (user("a"), assistant(use("i", "look", q="x y")), user(result("i", "r s")))
    bare = count(request(*called))
    assert bare == HI + 2 * A_TURN + 1 + 2 + 2  # a name, `{"q":"x` and `y"}`, and the result's two words
    assert count(request(*called, tools=[{"name": "look", "description": "one two three"}])) == bare + 3


def test_images_count_a_fixed_number_of_tokens(count: TokenizerFile) -> None:
    assert count(request(user("a", PIXEL, PIXEL))) == HI + 2 * AN_IMAGE


def test_multi_byte_texts_are_counted_in_tokens_not_bytes(count: TokenizerFile) -> None:
    assert count(request(user(text("漢字 🙂")))) == HI + 1


class Recording:
    """A tokenizer that notes how many texts and characters each call gets."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.calls: list[tuple[int, int]] = []

    def encode_batch_fast(self, texts: list[str], **how: Any) -> Any:
        self.calls.append((len(texts), sum(map(len, texts))))
        return self._tokenizer.encode_batch_fast(texts, **how)


@pytest.mark.parametrize(
    ("messages", "tokens"),
    [
        ([user("word " * 100_000)], HI - 1 + 100_000),
        ([user(*["a b"] * 5_000)], HI - 1 + 10_000),
        ([user("a b"), assistant("c")] * 1_000, A_TURN + 1_000 * (2 * A_TURN + 3)),
        ([user("x" * 100_000)], HI + 3),  # without a space, a token is divided
    ],
)
def test_a_long_prompt_is_counted_in_small_groups(count: TokenizerFile, messages: list[Any], tokens: int) -> None:
    count._tokenizer = recording = Recording(count._tokenizer)
    assert count(request(*messages)) == tokens
    assert max(texts for texts, _ in recording.calls) <= 64
    assert max(characters for _, characters in recording.calls) <= 2 * 32 * 1024


def test_generation_options_do_not_count(count: TokenizerFile) -> None:
    options: dict[str, Any] = {"temperature": 1, "stop_sequences": ["a b c"], "metadata": {"user_id": "u v"}}
    assert count(request(user("a"), **options)) == HI


def test_repr_names_the_class(count: TokenizerFile) -> None:
    assert repr(count).startswith("<TokenizerFile ")


def test_a_missing_package_is_an_error_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"pip install 'anthro-asgi\[tokenizer\]'$"):
        TokenizerFile(str(write_tokenizer(tmp_path / "t.json")))


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"model": {"type": "Nobody"}}'])
def test_an_invalid_file_is_refused_with_one_line_that_names_it(content: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"t\.json is not a valid tokenizer\.json: ") as caught:
        TokenizerFile(str(path))
    assert "\n" not in str(caught.value)
