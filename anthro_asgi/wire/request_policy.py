"""What an operator lets through of a request: what would be refused, or changed, by default, and how much of it
(contract section 3).
"""

from dataclasses import dataclass

from . import defaults


@dataclass(frozen=True, slots=True)
class Rules:
    """`parse_request` reads by them; a `MessagesApp` takes them as `rules`."""

    drop_server_tools: bool = False
    """Tools that would run on Anthropic's servers are left out of the request, which then names them in `dropped`."""
    client_tools_as_functions: bool = False
    """`bash_…`, `text_editor_…` and `memory_…` become tools with the schema that is documented for them."""
    pass_image_urls: bool = False
    """An image may be an address, for the engine to fetch. It is never fetched here."""
    keep_billing_header: bool = False
    """A leading system block that is exactly a client's billing header stays, though it changes on every call."""
    max_depth: int = defaults.MAX_DEPTH
    """Arrays and objects in one another, in a schema or the input of a tool. What no engine reads is refused in any
    case: some hundreds.
    """
    max_messages: int = defaults.MAX_MESSAGES
    max_tools: int = defaults.MAX_TOOLS
    """Those that are dropped, too."""
    max_stop_sequences: int = defaults.MAX_STOP_SEQUENCES


DEFAULT_RULES = Rules()
