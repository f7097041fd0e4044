"""What an operator allows in a request: limits, and content that is refused or changed by default (contract 3)."""

from dataclasses import dataclass
from typing import Literal

from . import defaults

PdfSupport = Literal["refuse", "not_installed", "read"]
"""Whether a service reads PDFs; `not_installed`: it would, if the library were there."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The operator's rules for `parse_request`; the argument `rules` of a `MessagesApp`."""

    drop_server_tools: bool = False
    """Remove tools that would run on Anthropic's servers and do not run here, but never web search or the only tool.

    The request lists them in `dropped_tools`.
    """
    pass_server_tools: bool = False
    """Accept what only a relayed upstream can do: server tools, MCP servers and compaction. Other engines refuse it."""
    web_search: bool = False
    """Run `web_search_…` here. A MessagesApp sets it if it has a search engine."""
    client_tools_as_functions: bool = False
    """Give `bash_…`, `text_editor_…` and `memory_…` tools the schema that is documented for them."""
    pass_image_urls: bool = False
    """Allow images by URL. The engine fetches them; this service never does."""
    keep_billing_header: bool = False
    """Keep a first system block that is exactly a client's billing header, though it changes with every call."""
    pdfs: PdfSupport = "refuse"
    """What happens to a document with the bytes of a PDF. A MessagesApp that reads PDFs sets it itself."""
    files: bool = False
    """Accept images and documents that refer to an uploaded file. A MessagesApp that keeps files sets it itself."""
    max_depth: int = defaults.MAX_DEPTH
    """Levels of arrays and objects in a tool's schema or input. Some hundreds are refused in any case: no engine can
    read them.
    """
    max_messages: int = defaults.MAX_MESSAGES
    max_tools: int = defaults.MAX_TOOLS
    """Counts the dropped tools, too."""
    max_stop_sequences: int = defaults.MAX_STOP_SEQUENCES


DEFAULT_RULES = Rules()
