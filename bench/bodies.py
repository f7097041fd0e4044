"""Request bodies for `POST /v1/messages`: a greeting, and the long conversation of a coding agent.

The agent's body is made from a seed, the same bytes every time: a system prompt in cached blocks, tools with their
schemas, and turns in which the assistant thinks, writes a sentence and calls a tool, whose result is in the next turn.
About three fifths are prose. The rest is source code, with the quotes, backslashes and line ends that JSON escapes. Two
texts of five are not ASCII, and some hold 19-digit numbers. It is compact JSON in UTF-8, as
JavaScript clients write it.
"""

from base64 import b64encode
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import orjson

Json = dict[str, Any]

_WORD_TEXT: Final = (
    "the of and to in a is that for it as with on be by this are or from at which an not have one if but can all has "
    "when file test value error request stream buffer parser token session because returns before after only between "
    'configuration asynchronous backpressure dependencies don\'t "quoted"'
)
_FOREIGN_TEXT: Final = "naïve café über Größe façade 漢字 日本語 данные — … → ✅ “so”"
_WORDS: Final = _WORD_TEXT.split()
_FOREIGN_WORDS: Final = [*_FOREIGN_TEXT.split(), *_WORDS[::3]]
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
_PLAIN: Final = 0.6  # of the texts, which are ASCII
_STOCK: Final = 600
_PROSE: Final = 0.6  # of the results
_SYSTEM: Final = (120, 14_000)  # approximate lengths of the blocks of the system prompt
_PATHS: Final = ("src/app/main.py", "src/upstream/pool.py", "web/components/Table.tsx", "docs/größen.md", "Makefile")


_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_STRING: Final[Json] = {"type": "string"}
_STEP: Final[Json] = {
    "type": "object",
    "properties": {
        "content": {"type": "string", "minLength": 1},
        "status": {"type": "string", "enum": ["pending", "in_progress", "completed"]},
        "activeForm": {"type": "string", "minLength": 1},
    },
    "required": ["content", "status", "activeForm"],
    "additionalProperties": False,
}
_SHAPES: Final[dict[str, Json]] = {  # of the arguments that are not just strings
    name: shape
    for names, shape in (
        ("timeout offset limit page scale", {"type": "number"}),
        ("run_in_background multiline replace_all read_only full_page case", {"type": "boolean", "default": False}),
        (
            "allowed_domains blocked_domains labels assignees paths exclude",
            {"type": "array", "items": {"type": "string"}},
        ),
        ("url", {"type": "string", "format": "uri"}),
        ("output_mode", {"type": "string", "enum": ["content", "files_with_matches", "count"]}),
        ("parameters", {"type": "array", "items": {}}),
        ("todos", {"type": "array", "items": _STEP}),
    )
    for name in names.split()
}
_TOOLS: Final = (  # name, required arguments, optional arguments
    ("Task", "description prompt subagent_type", "model"),
    ("Bash", "command", "timeout description run_in_background"),
    ("Glob", "pattern", "path"),
    ("Grep", "pattern", "path glob output_mode multiline"),
    ("Read", "file_path", "offset limit"),
    ("Edit", "file_path old_string new_string", "replace_all"),
    ("Write", "file_path content", ""),
    ("NotebookEdit", "notebook_path new_source", "cell_id edit_mode"),
    ("WebFetch", "url prompt", ""),
    ("WebSearch", "query", "allowed_domains blocked_domains"),
    ("TodoWrite", "todos", ""),
    ("BashOutput", "bash_id", "filter"),
    ("KillShell", "shell_id", ""),
    ("ExitPlanMode", "plan", ""),
    ("mcp__tracker__create_issue", "title body", "labels assignees"),
    ("mcp__tracker__search_issues", "query", "state page limit"),
    ("mcp__database__query", "sql", "parameters read_only"),
    ("mcp__browser__open", "url", "wait_for timeout"),
    ("mcp__browser__screenshot", "selector", "full_page scale"),
    ("mcp__files__search", "paths pattern", "exclude case"),
)


def hello() -> bytes:
    """The smallest request."""
    message = {"role": "user", "content": "Hello"}
    return orjson.dumps({"model": "bench", "max_tokens": 64, "stream": True, "messages": [message]})


def agent(size: int = 1_000_000, *, messages: int = 200, seed: int = 4) -> bytes:
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
        "tools": [_tool(author, number) for number in range(len(_TOOLS))],
    }
    body["messages"] = _turns(author, messages, size - len(orjson.dumps(body)))
    return orjson.dumps(body)


def _tool(author: "_Author", number: int) -> Json:
    name, required, optional = _TOOLS[number]
    names = f"{required} {optional}".split()
    fields = {name: {**_SHAPES.get(name, _STRING), "description": author.prose(90)} for name in names}
    schema = {
        "$schema": _DRAFT,
        "type": "object",
        "properties": fields,
        "required": required.split(),
        "additionalProperties": False,
    }
    return {"name": name, "description": author.prose(6_000 // (1 + number % 6)), "input_schema": schema}


def _turns(author: "_Author", count: int, size: int) -> list[Json]:
    """The user's question, pairs of a tool call and its result, an interruption, and a last pair.

    The pairs share `size` unevenly, as files are short or long.
    """
    pairs = (count - 2) // 2
    shares = [min(author.chance.paretovariate(1.2), 12.0) for _ in range(pairs)]
    reminder = f"<system-reminder>\n{author.prose(900)}\n</system-reminder>"
    texts = (reminder, "Why does the stream stall when a client reads slowly? Find it, and mend it.")
    turns: list[Json] = [{"role": "user", "content": [{"type": "text", "text": text} for text in texts]}]
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


def _pair(author: "_Author", number: int, size: int) -> list[Json]:
    """A tool call and its result, together of about `size` bytes."""
    identity = f"toolu_{author.chance.randbytes(12).hex()}"
    content: list[Json] = []
    if number % 3 == 0:
        thought = author.prose(400)
        signature = b64encode(author.chance.randbytes(150)).decode()
        content.append({"type": "thinking", "thinking": thought, "signature": signature})
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
            command = f'grep -rn "def \\w*" {path} | sort -u'
            return "Bash", {"command": command, "description": "Find it", "timeout": 9000}
        case 2:
            old, new = author.code(size // 2), author.code(size // 2)
            return "Edit", {"file_path": path, "old_string": old, "new_string": new, "replace_all": False}
        case _:
            steps = [{"content": author.prose(60), "status": "pending", "activeForm": "Reading"} for _ in range(3)]
            return "TodoWrite", {"todos": steps}


def _result(author: "_Author", number: int, identity: str, size: int) -> Json:
    """The result of call `number`, of about `size` bytes of JSON."""
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
    """Composes prose and code from stocks of sentences and lines, which `chance` makes and chooses.

    There are two stocks of each. One is pure ASCII, because a single other character changes how Python stores a text.
    """

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self._sentences = [self._sentences_of(words) for words in (_WORDS, _FOREIGN_WORDS)]
        self._sentences[1][7] = (_EMOJI, _written(_EMOJI))
        self._lines = [self._lines_of(lines) for lines in (_LINES, _FOREIGN_LINES)]

    def prose(self, size: int) -> str:
        """Sentences of about `size` bytes of JSON."""
        return self._filled(self._sentences, " ", size)

    def code(self, size: int) -> str:
        """Source code of about `size` bytes of JSON."""
        return self._filled(self._lines, "\n", size)

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
    """Bytes of the text in a JSON string, with the separator that follows."""
    return len(orjson.dumps(text)) - 1
