"""The README and the pages of `docs/`, and their blocks of code."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
README: Final = (ROOT / "README.md").read_text("utf-8")
PAGES: Final = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}
_BLOCK: Final = re.compile(r"^(?:<!-- ([\w ]+) -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def marked(text: str, mark: str) -> str:
    """The block of code under `<!-- mark -->`."""
    found = [code for name, _, code in blocks(text) if name == mark]
    assert len(found) == 1, mark
    return found[0]


def blocks(text: str) -> list[tuple[str | None, str, str]]:
    """The blocks of code of a page: mark, language and text of each."""
    return [(mark or None, language, code) for mark, language, code in _BLOCK.findall(text)]
