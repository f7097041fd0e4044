"""Ids of tool calls: a signature that an engine gave a call comes back to it, and short ids replace long ones."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anthro_asgi.engines.openai.call_ids import engine_call_id, signed_call_id, thought_signature
from anthro_asgi.engines.openai.dialects import DIALECTS, Dialect
from tests.support.chat_requests import assistant, every_dialect, result, sent, use, user

SIGNATURE = "CpcBAdHtim9+/w=="


def signed(signature: Any) -> dict[str, Any]:
    return {"extra_content": {"google": {"thought_signature": signature}}}


@given(signature=st.binary(min_size=1, max_size=90), identity=st.sampled_from(["call_1", "", None]))
def test_a_signature_survives_in_the_id_of_its_call(signature: bytes, identity: str | None) -> None:
    text = base64.b64encode(signature).decode()
    own = signed_call_id(identity, signed(text))
    assert thought_signature(own) == text
    assert own.replace("_", "").replace("-", "").isalnum()
    assert engine_call_id(own, None) == (identity or "call")


@pytest.mark.parametrize(
    "entry", [{}, {"extra_content": None}, {"extra_content": {"google": 1}}, signed(None), signed("?"), signed("abc")]
)
@pytest.mark.parametrize("identity", ["call_1", "", None])
def test_a_call_without_a_readable_signature_keeps_its_id(entry: dict[str, Any], identity: str | None) -> None:
    assert signed_call_id(identity, entry) == identity
    assert thought_signature(identity or "") is None


GEMINI = DIALECTS["gemini"]


def test_the_engine_gets_its_signature_back_and_the_own_id_of_the_call() -> None:
    identity = signed_call_id("call_1", signed(SIGNATURE))
    calls, answers = assistant(use(identity), use("b")), user(result(identity, "1"), result("b", "2"))
    turn, answer, _ = sent(calls, answers, dialect=GEMINI)
    assert [call["id"] for call in turn["tool_calls"]] == ["call_1", "b"]
    assert turn["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": SIGNATURE}}
    assert "extra_content" not in turn["tool_calls"][1]
    assert answer["tool_call_id"] == "call_1"


def test_a_call_of_another_model_has_the_published_placeholder_for_a_signature() -> None:
    turn = sent(assistant(use("a"), use("b")), user(result("a"), result("b")), dialect=GEMINI)[0]
    first, second = turn["tool_calls"]
    assert first["extra_content"] == {"google": {"thought_signature": "skip_thought_signature_validator"}}
    assert "extra_content" not in second


@every_dialect
def test_no_other_engine_gets_a_signature(dialect: Dialect) -> None:
    identity = signed_call_id("call_1", signed(SIGNATURE))
    turn = sent(assistant(use(identity)), user(result(identity)), dialect=dialect)[0]
    assert ("extra_content" in turn["tool_calls"][0]) is (dialect is GEMINI)
    assert SIGNATURE[:8] not in turn["tool_calls"][0]["id"]


@pytest.mark.parametrize("identity", ["toolu_01A09q90qw90lq917835lq9", "", "a" * 8, "abcdefgh_", "äbcdefghi"])
def test_an_id_of_another_length_becomes_one_that_the_engine_accepts(identity: str) -> None:
    own = engine_call_id(identity, 9)
    assert (len(own), own.isalnum(), own.isascii()) == (9, True, True)
    assert engine_call_id(identity, 9) == own


def test_an_id_that_the_engine_accepts_is_unchanged_and_a_call_and_its_result_have_the_same() -> None:
    assert engine_call_id("abcDEF123", 9) == "abcDEF123"
    turn, answer = sent(assistant(use("toolu_1")), user(result("toolu_1", "x")), dialect=DIALECTS["mistral"])
    assert turn["tool_calls"][0]["id"] == answer["tool_call_id"] == engine_call_id("toolu_1", 9)
