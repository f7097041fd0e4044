"""Response headers of an upstream that tell a client about its limits and its account. Pure.

They go on to the client with an answer, with a count and with an error. A value that is not a short line of printable
ASCII is left out.
"""

import re
from collections.abc import Iterable
from typing import Final

Headers = tuple[tuple[str, str], ...]

_NAME: Final = re.compile(rb"anthropic-(?:organization-id|(?:ratelimit|priority|fast)-[a-z0-9-]{1,64})")
_MAX_HEADERS: Final = 32
SAFE_VALUE: Final = re.compile(rb"[!-~][ -~]{0,63}")
"""A number, a word or a date."""


def account_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Those of `headers` that are about limits and the account, each name once. `headers` have lower-case names."""
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if _NAME.fullmatch(name) and SAFE_VALUE.fullmatch(value) and len(found) < _MAX_HEADERS:
            found.setdefault(name, value)
    return tuple((name.decode(), value.decode()) for name, value in found.items())
