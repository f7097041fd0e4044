"""What is known of sent messages is the same whether they are values or stored as JSON text."""

from itertools import pairwise
from typing import Any

import pytest

from anthro_asgi.engines.openai.sent_messages import SentMessages, look_in_steps
from anthro_asgi.wire.large.cooperative import run_to_end
from anthro_asgi.wire.large.json_writer import StoredArray, dumps_in_steps

Json = dict[str, Any]
LONG = "Hello \N{GRINNING FACE}" * 20_000
CALL: Json = {"role": "assistant", "content": None, "tool_calls": [{"id": "a"}]}
CASES: dict[str, list[Json]] = {
    "nothing": [],
    "one message": [{"role": "user", "content": "Hi"}],
    "a late system message": [{"role": "user", "content": "Hi"}, {"role": "system", "content": "Be brief."}],
    "text behind a result": [CALL, {"role": "tool", "content": "x"}, {"role": "user", "content": "Hi"}],
    "results at the end": [{"role": "user", "content": "Hi"}, CALL, {"role": "tool", "content": "x"}] * 3,
    "reasoning": [{"role": "assistant", "content": "Hi", "reasoning_content": LONG}],
    "an image": [{"role": "user", "content": [{"type": "text", "text": LONG}, {"type": "image_url"}]}],
    "small parts": [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
    "many messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": LONG}] * 50,
}


@pytest.mark.parametrize("case", CASES)
def test_stored_messages_tell_the_same_as_values(case: str) -> None:
    stored = StoredArray()
    for message in CASES[case]:
        run_to_end(stored.append(message))
    run_to_end(dumps_in_steps(stored))
    assert run_to_end(look_in_steps(stored)) == seen(CASES[case])
    assert run_to_end(look_in_steps(CASES[case])) == seen(CASES[case])


def seen(messages: list[Json]) -> SentMessages:
    """The slow, obvious way."""
    roles = [message["role"] for message in messages]
    contents = [message["content"] for message in messages]
    return SentMessages(
        roles=set(roles),
        late_roles=set(roles[1:]),
        last_role=roles[-1] if roles else "",
        keys={key for message in messages for key in message},
        has_null_content=None in contents,
        has_parts=any(isinstance(content, list) for content in contents),
        has_text_behind_result=any(
            before == "tool" and after in ("user", "system") for before, after in pairwise(roles)
        ),
    )


def test_one_huge_message_is_looked_at_in_steps() -> None:
    stored = StoredArray()
    run_to_end(stored.append({"role": "user", "content": [{"type": "text", "text": LONG}] * 20}))
    run_to_end(dumps_in_steps(stored))
    assert sum(1 for _ in look_in_steps(stored)) > 50
