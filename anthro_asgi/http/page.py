"""The page that a browser gets at `GET /`: what is served, how to point clients here, live figures, and a try-it box.

The page is one static file without anything about this service. Its script asks the service for that, as any client
does: so the models and the answers need an API key where keys are configured, and the page asks for it. Its content
security policy allows its own script and style, by their digests, and requests to its own origin, and nothing else.
"""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from typing import Final

HTML: Final = "text/html; charset=utf-8"
_ACCEPTS_HTML: Final = re.compile(rb"(?:^|,)\s*text/html\s*(?:[;,]|$)", re.IGNORECASE)


def accepts_html(accept: bytes | None) -> bool:
    """Whether the value of an `accept` header names HTML, as that of a browser does. `*/*` does not."""
    return accept is not None and _ACCEPTS_HTML.search(accept) is not None


@cache
def page() -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """The page and the headers of its response, besides the content type."""
    from importlib.resources import files  # slow to import, and few processes serve a page

    text = files(__package__).joinpath("page.html").read_text("utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            "connect-src 'self'",
            f"script-src '{_digest(text, 'script')}'",
            f"style-src '{_digest(text, 'style')}'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    return text.encode(), (
        ("content-security-policy", policy),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-content-type-options", "nosniff"),
        ("vary", "accept"),
    )


def _digest(text: str, tag: str) -> str:
    """The digest of the content of the page's only element of this kind, as a content security policy writes it."""
    content = text.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
    return f"sha256-{b64encode(sha256(content.encode()).digest()).decode()}"
