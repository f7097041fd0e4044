"""The README and the pages of `docs/`, and their blocks of code."""

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
README: Final = (ROOT / "README.md").read_text("utf-8")
PAGES: Final = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in sorted(DOCS.rglob("*.md"))}


def marked(text: str, mark: str) -> str:
    """The block of code under `<!-- mark -->`."""
    found = re.search(rf"<!-- {mark} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert found is not None, mark
    return found[1]
