"""Reads the body of `POST /v1/messages/batches` piece by piece, so that memory does not grow with the batch. Pure.

    {"requests": [ {"custom_id": "a", "params": {…}}, {…}, … ]}
     └─ outline ──┘└─ entry ─────────────────┘└─ params

The reader looks at quotes, brackets and braces only. It cuts the params out of each entry, and the entries out of the
body; a 0 stands in the place of what was cut out. What is left of an entry and of the body, its outline, is small and
is parsed as JSON. The params are checked to be JSON, and stay bytes.
"""

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from .errors import ApiError, InvalidRequest, RequestTooLarge
from .json_codec import loads
from .large.cooperative import Steps, drop_in_steps, takes_long
from .large.json_reader import loads_in_steps

MAX_REQUESTS: Final = 100_000
"""Requests of one batch."""
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_WINDOW: Final = 4 * 1024  # bytes that one step looks at; brackets alone take a millisecond
_MAX_ENTRY_OUTLINE: Final = 64 * 1024  # bytes of an entry without its params
_MAX_OUTLINE: Final = 1024 * 1024  # bytes of the body without its entries
_LONGEST_KEY: Final = 64  # bytes before a value in which its key is looked for
# A whole string; a quote that opens a string without an end in this window; a bracket.
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"|["{}\[\]]', re.DOTALL)
_IN_STRING: Final = re.compile(rb"(?:[^\"\\]++|\\.)*+", re.DOTALL)
_REQUESTS_KEY: Final = re.compile(rb'[{,]\s*"requests"\s*:\s*\Z')
_PARAMS_KEY: Final = re.compile(rb'[{,]\s*"params"\s*:\s*\Z')
_QUOTE, _BACKSLASH = b'"\\'
_OPENING: Final = frozenset(b"{[")
# Depths at which the parts of a body begin: the body itself is an object of depth 1.
_ARRAY, _ENTRY, _PARAMS = 2, 3, 4


class BatchEntry(NamedTuple):
    """One request of a batch, as the client sent it. `params` is JSON."""

    custom_id: str
    params: bytes


class BatchBodyReader:
    """Reads one body.

    Args:
        max_requests: most entries of `requests`.
        max_params: most bytes of the params of one entry.

    Attributes:
        count: entries that have been read.
    """

    def __init__(self, *, max_requests: int = MAX_REQUESTS, max_params: int) -> None:
        self._max_requests = max_requests
        self._max_params = max_params
        self.count = 0
        self._depth = 0
        self._in_string = False
        self._in_array = False
        self._held = b""  # a backslash at the end of a window, whose next character is not there yet
        self._outline = bytearray()
        self._entry = bytearray()
        self._params = bytearray()
        self._cut_params = 0  # how many params were cut out of the entry
        self._part = self._outline  # where the bytes go

    @property
    def held(self) -> int:
        """Bytes in memory."""
        return len(self._outline) + len(self._entry) + len(self._params)

    def feed(self, piece: bytes) -> Steps[list[BatchEntry]]:
        """The entries that end in this piece of the body. Raises InvalidRequest or RequestTooLarge."""
        entries: list[BatchEntry] = []
        for start in range(0, len(piece), _WINDOW):
            for entry, params in self._scan(self._held + piece[start : start + _WINDOW]):
                entries.append((yield from self._checked(entry, params)))
            yield
        return entries

    def close(self) -> Steps[int]:
        """The number of entries, once the whole body was read. Raises InvalidRequest."""
        outline = bytes(self._outline)
        self._outline.clear()
        try:
            held = [(yield from _loaded(outline))]
        except ValueError:
            raise InvalidRequest("body: invalid JSON") from None
        wrong = self._wrong_with(held[0])
        yield from drop_in_steps(held)
        if wrong is not None:
            raise InvalidRequest(wrong)
        return self.count

    def _wrong_with(self, body: Any) -> str | None:
        """Why the outline of a body is not valid; None if it is."""
        if not isinstance(body, dict):
            return "body: must be an object"
        requests = body.get("requests")
        if requests is None:
            return "requests: required"
        if not isinstance(requests, list):
            return "requests: must be an array"
        if len(requests) != self.count or requests.count(0) != self.count:
            return "requests: each entry must be an object"
        return None if requests else "requests: must have at least one entry"

    def _scan(self, window: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Look at one window. Yields each entry that ends in it: its outline and its params."""
        self._held = b""
        at = begin = 0  # of what is to be looked at, and of what no part has got yet
        if self._in_string:
            at = self._string_end(window, 0)
        if not self._in_string:
            for token in _TOKEN.finditer(window, at):
                char, where = window[token.start()], token.start()
                if char == _QUOTE:
                    if token.end() - where == 1:
                        self._in_string = True
                        self._string_end(window, where + 1)
                elif char in _OPENING:
                    self._depth += 1
                    if self._opens_part(window, begin, where):
                        begin = where
                else:
                    self._depth -= 1
                    if self._depth < 0:
                        raise InvalidRequest("body: invalid JSON")
                    ended = self._closes_part(window, begin, where + 1)
                    begin = where + 1 if ended else begin
                    if ended and self._part is self._outline and self._entry:
                        yield self._take_entry()
                if self._in_string:
                    break
        self._add(window[begin : len(window) - len(self._held)])

    def _string_end(self, window: bytes, at: int) -> int:
        """Where the string ends in which `at` lies; `_in_string` stays set if it does not end in this window."""
        end = _match_end(window, at)
        if end == len(window):
            return end
        if window[end] == _BACKSLASH:
            self._held = window[end:]
            return len(window)
        self._in_string = False
        return end + 1

    def _opens_part(self, window: bytes, begin: int, where: int) -> bool:
        """Whether the bracket at `where` begins the array of requests, an entry, or its params."""
        if self._depth == _ARRAY and window[where] == ord("[") and not self._in_array:
            self._add(window[begin:where])
            self._in_array = _REQUESTS_KEY.search(self._outline[-_LONGEST_KEY:]) is not None
            return True
        if not self._in_array or window[where] == ord("["):
            return False
        if self._depth == _ENTRY and self._part is self._outline:
            self._add(window[begin:where] + b"0")
            if self.count >= self._max_requests:
                raise InvalidRequest(f"requests: at most {self._max_requests} in one batch")
            self._part = self._entry
            return True
        if self._depth == _PARAMS and self._part is self._entry:
            self._add(window[begin:where])
            if _PARAMS_KEY.search(self._entry[-_LONGEST_KEY:]) is not None:
                self._add(b"0")
                self._cut_params += 1
                self._params.clear()
                self._part = self._params
            return True
        return False

    def _closes_part(self, window: bytes, begin: int, end: int) -> bool:
        """Whether the bracket before `end` ends a part."""
        if self._part is self._params:
            if self._depth >= _PARAMS:
                return False
            self._add(window[begin:end])
            self._part = self._entry
            return True
        if self._part is self._entry:
            if self._depth >= _ENTRY:
                return False
            self._add(window[begin:end])
            self._part = self._outline
            return True
        if self._depth < _ARRAY:
            self._in_array = False
        return False

    def _take_entry(self) -> tuple[bytes, bytes | None]:
        if self._cut_params > 1:
            raise self._invalid("params: given more than once")
        entry, params = bytes(self._entry), bytes(self._params) if self._cut_params else None
        self._entry.clear()
        self._params.clear()
        self._cut_params = 0
        return entry, params

    def _add(self, data: bytes) -> None:
        """Add to the current part. Raises RequestTooLarge or InvalidRequest."""
        part = self._part
        if part is self._outline and self._in_array and b'"' not in data:
            data = b" ".join(data.split())  # white space between the entries of a body with line ends
        part += data
        if part is self._params:
            if len(part) > self._max_params:
                raise RequestTooLarge(f"requests.{self.count}.params: larger than {self._max_params} bytes")
        elif part is self._entry:
            if len(part) > _MAX_ENTRY_OUTLINE:
                raise self._invalid(f"more than {_MAX_ENTRY_OUTLINE} bytes beside params")
        elif len(part) > _MAX_OUTLINE:
            raise InvalidRequest(f"body: more than {_MAX_OUTLINE} bytes beside the entries of requests")

    def _checked(self, outline: bytes, params: bytes | None) -> Steps[BatchEntry]:
        """The entry. Raises InvalidRequest."""
        try:
            entry: dict[str, Any] = loads(outline)
            if params is not None:
                held = [(yield from _loaded(params))]
                yield from drop_in_steps(held)
        except ValueError:
            raise self._invalid("invalid JSON") from None
        custom_id = entry.get("custom_id")
        if custom_id is None:
            raise self._invalid("custom_id: required")
        if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
            raise self._invalid("custom_id: must have 1 to 64 characters, each a letter, a digit, `_` or `-`")
        if params is None:
            raise self._invalid("params: must be an object" if "params" in entry else "params: required")
        self.count += 1
        return BatchEntry(custom_id, params)

    def _invalid(self, what: str) -> ApiError:
        separator = "." if ": " in what else ": "
        return InvalidRequest(f"requests.{self.count}{separator}{what}")


def _loaded(document: bytes) -> Steps[Any]:
    """The value of a JSON document, in steps if it is large. Raises ValueError, InvalidRequest and RequestTooLarge."""
    return (yield from loads_in_steps([document]))[0] if takes_long([document]) else loads(document)


def _match_end(window: bytes, at: int) -> int:
    found = _IN_STRING.match(window, at)
    return at if found is None else found.end()
