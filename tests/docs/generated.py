"""The parts of pages that are computed from the code.

Such a part stands between the lines `<!-- generated NAME: begin -->` and `<!-- generated NAME: end -->`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from anthro_asgi.settings.options import markdown_table

PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "options": markdown_table,
}


def renewed(text: str) -> str:
    """The text of a page with every generated part as the code says now. Raises KeyError for an unknown name."""
    return re.sub(
        r"(<!-- generated ([\w ]+): begin -->\n).*?(<!-- generated \2: end -->)",
        lambda found: f"{found[1]}{PARTS[found[2]]().strip()}\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def names(text: str) -> list[str]:
    """The names of the generated parts of a page."""
    return re.findall(r"<!-- generated ([\w ]+): end -->", text)
