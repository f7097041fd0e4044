"""The lines of a shell that point clients to a service, as `serve` and `check` print them.

Claude Code takes an unknown model for one with a window of a million tokens, whatever the model list says, and heeds
only CLAUDE_CODE_MAX_CONTEXT_TOKENS. The SDKs read the two other variables.
"""

import shlex
from typing import Final

_SMALLEST_WINDOW: Final = 32_768
"""Tokens that leave room for a short task: the first request of Claude Code has about 20 000."""


def small_window(window: int | None) -> str | None:
    """What to say of a model's context of `window` tokens that is too small for Claude Code; None for a larger one."""
    if window is None or window >= _SMALLEST_WINDOW:
        return None
    return f"a window of {window} tokens is too small for Claude Code; give the model at least {_SMALLEST_WINDOW}"


def reachable_url(address: str) -> str:
    """The URL for clients on this machine, of a service that listens at `address`, such as `http://0.0.0.0:8484`."""
    return address.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")


def client_key(has_keys: bool) -> str:
    """The API key in the lines that set up a client. With `has_keys` the service requires a key: then a placeholder."""
    return "YOUR_KEY" if has_keys else "unused"


def claude_code_lines(model: str, window: int | None, *, url: str, key: str) -> list[str]:
    """The lines that start Claude Code with this service. `window` is the model's context in tokens."""
    lines = ["for Claude Code:", f"export ANTHROPIC_BASE_URL={url} ANTHROPIC_AUTH_TOKEN={key}"]
    if window is not None:
        lines.append(f"export CLAUDE_CODE_MAX_CONTEXT_TOKENS={window}")
    return [*lines, f"claude --model {shlex.quote(model)}"]


def claude_code_command(client: tuple[str, int | None] | None, url: str | None, key: str) -> str | None:
    """The same as one line. `client` is the model with its window. None if there is no model or no URL."""
    if client is None or url is None:
        return None
    lines = claude_code_lines(*client, url=url, key=key)[1:]
    return " ".join(line.removeprefix("export ") for line in lines)
