"""Request bodies for `POST /v1/messages`: a greeting, and what a coding agent sends after a long afternoon.

The agent's body is made from a seed, the same bytes every time: a system prompt in marked blocks, tools with their
schemas, and turns in which the assistant thinks, says a sentence and calls a tool, whose result the next turn brings.
About three fifths of it are prose, the rest is source code, with the quotes, backslashes and line ends that make a
JSON string long; two texts of five are not all ASCII, and in some there are numbers as long as nanoseconds since 1970.
It is written as a JavaScript client writes JSON: compact, in UTF-8.
"""

from base64 import b64encode
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import orjson

from . import toolset

Json = dict[str, Any]

_WORDS: Final = (
    *("the", "of", "and", "to", "in", "a", "is", "that", "for", "it", "as", "with", "on", "be", "by", "this", "are"),
    *(
        "or",
        "from",
        "at",
        "which",
        "an",
        "not",
        "have",
        "one",
        "if",
        "but",
        "can",
        "all",
        "has",
        "when",
        "file",
        "test",
    ),
    *("value", "error", "request", "stream", "buffer", "parser", "token", "session", "because", "returns", "before"),
    *("after", "only", "between", "configuration", "asynchronous", "backpressure", "dependencies", "don't", '"quoted"'),
)
_FOREIGN_WORDS: Final = (
    *("naïve", "café", "über", "Größe", "façade", "漢字", "日本語", "данные", "—", "…", "→", "✅", "“so”"),
    *_WORDS[::3],
)
_LINES: Final = (
    "def {name}(self, value: str, *, limit: int = {number}) -> dict[str, Any]:",
    '    """Return the `{name}` of *value*; see RFC {number}."""',
    "    if not isinstance(value, str) or len(value) > {number}:",
    '        raise ValueError(f"{name}: expected \\"str\\", got {{type(value)!r}}\\n")',
    '    pattern = re.compile(r"^\\s*(?P<key>[\\w.-]+)\\s*[:=]\\s*\\"?(?P<value>[^\\"\\\\]*)\\"?$")',
    "\tfor (const {name} of items.filter((item) => item.id !== {number})) {{",
    "\t\tconsole.log(`${{{name}}}: ${{JSON.stringify({name}, null, '\\t')}}`);",
    '    return {{"{name}": value, \'count\': {number}, "ok": True}}',
    "",
)
_FOREIGN_LINES: Final = (
    "    path = os.path.join('C:\\\\Users\\\\{name}', \"données\", '{number}.json')",
    "    # größer als {number}? dann später noch einmal → siehe {name}",
    '    assert render("{name}") == "✅ {number} — 漢字"',
    *_LINES[::2],
)
_TIME: Final = 1_795_376_037_123_456_789  # nanoseconds
_EMOJI: Final = "Done 🙂."
_PLAIN: Final = 0.6  # of the texts are ASCII
_STOCK: Final = 600
_PROSE: Final = 0.6  # of what the turns say
_THOUGHT: Final = 400  # characters, about
_SYSTEM: Final = (120, 14_000)  # characters of the blocks of the system prompt, about
_PATHS: Final = ("src/app/main.py", "src/upstream/pool.py", "web/components/Table.tsx", "docs/größen.md", "Makefile")


def hello() -> bytes:
    """The smallest request there is."""
    message = {"role": "user", "content": "Hello"}
    return orjson.dumps({"model": "bench", "max_tokens": 64, "stream": True, "messages": [message]})


def agent(size: int = 1_000_000, *, messages: int = 200, tools: int = 20, seed: int = 4) -> bytes:
    """A coding agent's request of about `size` bytes. `messages` is even, and 4 or more."""
    author = _Author(Random(seed))  # noqa: S311 - repeatable, not secret
    body: Json = {
        "model": "bench",
        "max_tokens": 32_000,
        "stream": True,
        "temperature": 1,
        "metadata": {"user_id": "user_0f2d_account__session_5b1c"},
        "thinking": {"type": "enabled", "budget_tokens": 16_000},
        "system": [
            {"type": "text", "text": author.prose(length), "cache_control": {"type": "ephemeral"}} for length in _SYSTEM
        ],
        "tools": toolset.tools(tools, author.prose),
    }
    body["messages"] = _turns(author, messages, size - len(orjson.dumps(body)))
    return orjson.dumps(body)


def _turns(author: "_Author", count: int, size: int) -> list[Json]:
    """The user's question, pairs of a call and its result, an interruption, one more pair: the last word is the user's.

    The pairs share `size` unevenly, as files are short or long.
    """
    pairs = (count - 2) // 2
    shares = [author.chance.paretovariate(1.2) for _ in range(pairs)]
    shares = [min(share, 12.0) for share in shares]
    turns: list[Json] = [_question(author)]
    left = size - len(orjson.dumps(turns))
    for number, share in enumerate(shares):
        if number == pairs - 1:
            turns.append({"role": "user", "content": "[interrupted] Leave the tests as they are — and go on."})
        turns += _pair(author, number, max(600, int(left * share / sum(shares[number:]))))
        left = size - sum(map(_size, turns))
    turns[-1]["content"][-1]["cache_control"] = {"type": "ephemeral"}
    return turns


def _size(turn: Json) -> int:
    return len(orjson.dumps(turn)) + 1


def _question(author: "_Author") -> Json:
    reminder = f"<system-reminder>\n{author.prose(900)}\n</system-reminder>"
    texts = (reminder, "Why does the stream stall when a client reads slowly? Find it, and mend it.")
    return {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}


def _pair(author: "_Author", number: int, size: int) -> list[Json]:
    """One call and its result, of about `size` bytes together."""
    identity = f"toolu_{author.chance.randbytes(12).hex()}"
    content: list[Json] = []
    if number % 3 == 0:
        content.append({"type": "thinking", "thinking": author.prose(_THOUGHT), "signature": author.signature()})
    content.append({"type": "text", "text": author.prose(160)})
    name, arguments = _call(author, number, min(size // 4, 4_000))
    content.append({"type": "tool_use", "id": identity, "name": name, "input": arguments})
    turn = {"role": "assistant", "content": content}
    return [turn, _result(author, number, identity, max(80, size - _size(turn) - 160))]


def _call(author: "_Author", number: int, size: int) -> tuple[str, Json]:
    path = f"/home/dev/project/{_PATHS[number % len(_PATHS)]}"
    match number % 4:
        case 0:
            return "Read", {"file_path": path, "offset": number * 10, "limit": 200}
        case 1:
            return "Bash", {
                "command": f'grep -rn "def \\w*" {path} | sort -u',
                "description": "Find it",
                "timeout": 9000,
            }
        case 2:
            old, new = author.code(size // 2), author.code(size // 2)
            return "Edit", {"file_path": path, "old_string": old, "new_string": new, "replace_all": False}
        case _:
            steps = [{"content": author.prose(60), "status": "pending", "activeForm": "Reading"} for _ in range(3)]
            return "TodoWrite", {"todos": steps}


def _result(author: "_Author", number: int, identity: str, size: int) -> Json:
    """`size` in bytes of JSON, about."""
    text = author.prose(size) if author.chance.random() < _PROSE else author.code(size)
    if number % 8 == 1:
        text = f'{{"time":{_TIME + number},"level":"info","id":{_TIME // 3}}}\n{text}'
    block: Json = {"type": "tool_result", "tool_use_id": identity}
    if number % 5 == 4:
        block |= {"content": text, "is_error": number % 10 == 9}
    else:
        block["content"] = [{"type": "text", "text": text}]
    content = [block]
    if number % 7 == 0:
        content.append({"type": "text", "text": "<system-reminder>\nThe list of steps is empty.\n</system-reminder>"})
    return {"role": "user", "content": content}


class _Author:
    """Writes prose and code out of stocks of sentences and lines, which `chance` fills and chooses from.

    There are two stocks of each, one of them all ASCII: a single character that is not makes the whole text it is in
    another kind of string, to Python.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self._sentences = [self._sentences_of(words) for words in (_WORDS, _FOREIGN_WORDS)]
        self._sentences[1][7] = (_EMOJI, _written(_EMOJI))
        self._lines = [self._lines_of(lines) for lines in (_LINES, _FOREIGN_LINES)]

    def prose(self, size: int) -> str:
        """Text of about `size` bytes as JSON."""
        return self._filled(self._sentences, " ", size)

    def code(self, size: int) -> str:
        """Source code of about `size` bytes as JSON."""
        return self._filled(self._lines, "\n", size)

    def signature(self) -> str:
        return b64encode(self.chance.randbytes(150)).decode()

    def _filled(self, stocks: list[list[tuple[str, int]]], between: str, size: int) -> str:
        stock = stocks[self.chance.random() >= _PLAIN]
        start = self.chance.randrange(_STOCK)
        parts: list[str] = []
        while size > 0:
            text, length = stock[(start + len(parts)) % _STOCK]
            parts.append(text)
            size -= length
        return between.join(parts)

    def _sentences_of(self, words: Sequence[str]) -> list[tuple[str, int]]:
        said = [" ".join(self.chance.choices(words, k=self.chance.randint(6, 22))) for _ in range(_STOCK)]
        texts = [text.capitalize() + self.chance.choice((".", ".", "?", ":", ".\n\n")) for text in said]
        return [(text, _written(text)) for text in texts]

    def _lines_of(self, lines: Sequence[str]) -> list[tuple[str, int]]:
        return [self._line(number, self.chance.choice(lines)) for number in range(_STOCK)]

    def _line(self, number: int, line: str) -> tuple[str, int]:
        name = "_".join(self.chance.sample(("read", "parse", "flush", "token", "item", "value"), 2))
        text = f"{number + 1:>6}\t{line.format(name=name, number=self.chance.randrange(10_000))}"
        return text, _written(text)


def _written(text: str) -> int:
    """Bytes of the text within a JSON string, and of what parts it from the next."""
    return len(orjson.dumps(text)) - 1
