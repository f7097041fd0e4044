"""The body of a batch, read piece by piece: the same entries and errors, however it is cut."""

import json
import random
from typing import Any

import pytest

from anthro_asgi.wire.batch_body import BatchBodyReader, BatchEntry
from anthro_asgi.wire.errors import InvalidRequest, RequestTooLarge
from anthro_asgi.wire.large.cooperative import run_to_end

PARAMS: list[dict[str, Any]] = [
    {},
    {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": 'a "b" {[\\ "params": {'}]},
    {"text": "ü€😀\n\t\u0000", "deep": [[{"params": {"requests": [{}]}}]], "big": 2**70},
    {"requests": [{"custom_id": "x", "params": {}}], "end": "\\"},
]
ENTRIES: list[dict[str, Any]] = [
    {"custom_id": "a", "params": PARAMS[0]},
    {"params": PARAMS[1], "custom_id": "B_2-c"},
    {"note": {"params": [1]}, "custom_id": "c" * 64, "more": [{}], "params": PARAMS[2], "tail": None},
    {"custom_id": "4", "params": PARAMS[3]},
]
BODY: dict[str, Any] = {"before": {"requests": [0]}, "requests": ENTRIES, "after": [[{"requests": []}]]}


def read(body: bytes, cuts: list[int] | None = None, **limits: int) -> list[BatchEntry]:
    """The entries of a body that arrives in pieces. Raises what the reader raises."""
    reader = BatchBodyReader(**{"max_params": 1 << 20, **limits})
    entries: list[BatchEntry] = []
    at = 0
    for cut in [*(cuts or ()), len(body)]:
        entries += run_to_end(reader.feed(body[at:cut]))
        at = cut
    assert run_to_end(reader.close()) == len(entries)
    return entries


def as_json(entries: list[BatchEntry]) -> list[dict[str, Any]]:
    return [{"custom_id": entry.custom_id, "params": json.loads(entry.params)} for entry in entries]


EXPECTED = [{"custom_id": entry["custom_id"], "params": entry["params"]} for entry in ENTRIES]
FORMS = {
    "compact": json.dumps(BODY, separators=(",", ":"), ensure_ascii=False).encode(),
    "escaped": json.dumps(BODY).encode(),
    "indented": json.dumps(BODY, indent=4, ensure_ascii=False).encode(),
    "with line ends of Windows": json.dumps(BODY, indent=1).replace("\n", "\r\n").encode(),
}


@pytest.mark.clause("11.2")
@pytest.mark.parametrize("form", FORMS)
def test_a_body_is_read_whole_byte_by_byte_and_at_random_cuts(form: str) -> None:
    body = FORMS[form]
    assert as_json(read(body)) == EXPECTED
    assert as_json(read(body, list(range(1, len(body))))) == EXPECTED
    source = random.Random(form)
    for _ in range(200):
        cuts = sorted(source.sample(range(len(body)), source.randint(0, 12)))
        assert as_json(read(body, cuts)) == EXPECTED, cuts


def test_the_params_of_an_entry_are_the_bytes_that_the_client_sent() -> None:
    assert read(b'{"requests":[{"custom_id":"a", "params": { "x" : 1e400000 }}]}'.replace(b"1e400000", b"1.50"))[0] == (
        BatchEntry("a", b'{ "x" : 1.50 }')
    )


def entry(text: str) -> str:
    return f'{{"requests": [{{"custom_id": "a", "params": {{}}}}, {text}]}}'


ERRORS = {
    "": "body: invalid JSON",
    "[]": "body: must be an object",
    "]": "body: invalid JSON",
    "{}": "requests: required",
    '{"requests": null}': "requests: required",
    '{"requests": {}}': "requests: must be an array",
    '{"requests": []}': "requests: must have at least one entry",
    '{"requests": [1]}': "requests: each entry must be an object",
    '{"requests": [[{"custom_id": "a", "params": {}}]]}': "requests: each entry must be an object",
    '{"requests": [{"custom_id": "a", "params": {}}': "body: invalid JSON",
    '{"requests": [{"custom_id": "a", "params": {}} {"custom_id": "b", "params": {}}]}': "body: invalid JSON",
    '{"requests": [{"custom_id": "a", "params": {}}], "requests": [{"custom_id": "b", "params": {}}]}': (
        "requests: each entry must be an object"
    ),
    entry('{"params": {}}'): "requests.1.custom_id: required",
    entry('{"custom_id": 7, "params": {}}'): "requests.1.custom_id: must have 1 to 64 characters, each a letter",
    entry('{"custom_id": "", "params": {}}'): "requests.1.custom_id: must have 1 to 64 characters",
    entry('{"custom_id": "%s", "params": {}}' % ("x" * 65)): "requests.1.custom_id: must have 1 to 64 characters",
    entry('{"custom_id": "a b", "params": {}}'): "requests.1.custom_id: must have 1 to 64 characters",
    entry('{"custom_id": "b"}'): "requests.1.params: required",
    entry('{"custom_id": "b", "params": [{}]}'): "requests.1.params: must be an object",
    entry('{"custom_id": "b", "params": "{}"}'): "requests.1.params: must be an object",
    entry('{"custom_id": "b", "params": {}, "params": {}}'): "requests.1.params: given more than once",
    entry('{"custom_id": "b", "params": {"a" 1}}'): "requests.1: invalid JSON",
    entry('{"custom_id": "b" "params": {}}'): "requests.1: invalid JSON",
    entry('{"custom_id": "b", "x": "%s", "params": {}}' % ("x" * 70_000)): "requests.1: more than 65536 bytes beside",
    '{"x": "%s"}' % ("x" * (1 << 20)): "body: more than 1048576 bytes beside the entries",
}


@pytest.mark.clause("11.2")
@pytest.mark.parametrize("body", ERRORS, ids=[f"{number}: {text}" for number, text in enumerate(ERRORS.values())])
def test_a_wrong_body_is_refused_with_the_path_at_fault(body: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(body.encode())
    assert caught.value.message.startswith(ERRORS[body])


def test_random_damage_is_an_error_or_still_the_reading_of_a_json_parser() -> None:
    source = random.Random(11)
    for _ in range(2000):
        body = bytearray(FORMS["compact"])
        for _ in range(source.randint(1, 3)):
            at = source.randrange(len(body))
            body[at : at + source.randint(0, 2)] = source.choice([b'"', b"{", b"}", b"[", b"]", b"\\", b",", b"", b"0"])
        try:
            found = as_json(read(bytes(body)))
        except InvalidRequest:
            continue
        parsed = json.loads(body)["requests"]  # what the reader accepts is JSON
        assert found == [{"custom_id": one["custom_id"], "params": one["params"]} for one in parsed]


@pytest.mark.clause("11.3")
def test_a_batch_has_limits() -> None:
    body = b'{"requests":[' + b",".join(b'{"custom_id":"%d","params":{}}' % at for at in range(4)) + b"]}"
    assert len(read(body, max_requests=4)) == 4
    with pytest.raises(InvalidRequest, match="requests: at most 3 in one batch"):
        read(body, max_requests=3)
    with pytest.raises(RequestTooLarge, match=r"requests\.0\.params: larger than 9 bytes"):
        read(b'{"requests":[{"custom_id":"a","params":{"x":"yyyyyyyy"}}]}', max_params=9)


def test_memory_does_not_grow_with_the_number_of_entries() -> None:
    reader = BatchBodyReader(max_params=1 << 20)
    run_to_end(reader.feed(b'{"requests": [\n'))
    one = b'  {"custom_id": "%d", "params": {"text": "' + b"x" * 1000 + b'"}},\n'
    held = []
    for at in range(2000):
        run_to_end(reader.feed(one % at))
        held.append(reader.held)
    assert max(held) < 20_000  # of the two megabytes that were read
