"""What an operator lets through of a request that would be refused, or changed, by default (contract section 3)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """Each is off by default. `parse_request` reads by them; a `MessagesApp` takes them as `rules`."""

    drop_server_tools: bool = False
    """Tools that would run on Anthropic's servers are left out of the request, which then names them in `dropped`."""
    client_tools_as_functions: bool = False
    """`bash_…`, `text_editor_…` and `memory_…` become tools with the schema that is documented for them."""
    pass_image_urls: bool = False
    """An image may be an address, for the engine to fetch. It is never fetched here."""
    keep_billing_header: bool = False
    """A leading system block that is exactly a client's billing header stays, though it changes on every call."""
