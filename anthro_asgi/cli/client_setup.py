"""The lines of a shell that point clients to a service, as `serve` and `check` print them.

Claude Code takes an unknown model for one with a window of a million tokens, whatever the model list says, and heeds
only CLAUDE_CODE_MAX_CONTEXT_TOKENS. The SDKs read the two other variables.
"""

import shlex


def claude_code_lines(model: str, window: int | None, *, url: str = "http://HOST:PORT", key: str = "KEY") -> list[str]:
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
