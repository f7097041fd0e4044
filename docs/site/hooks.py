"""Hooks of the site: pages and files from outside `docs/`, so that the same links work here and in the repository.

Files of the repository that are pages of the site are in `PAGES`. Any other file to which a page links is copied to
`repository/`.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "bench/README.md": "bench.md",
    "README.md": "index.md",
}
LINK = re.compile(r"\]\(([^)\s#:]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and the files from outside `docs/`."""
    for source, name in PAGES.items():
        if files.get_file_from_path(name) is None:
            files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    wanted = {
        place
        for file in files.documentation_pages()
        for target, _ in LINK.findall(file.content_string)
        if (place := _place(_folder(file.src_uri), target)).startswith("repository/")
    }
    for place in sorted(wanted):
        original = ROOT / place.removeprefix("repository/")
        if original.is_file():  # a link to a file that does not exist stays, and fails the strict build
            files.append(File.generated(config, place, abs_src_path=str(original)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the links of a page to their places in the site."""
    here = posixpath.dirname(page.file.src_uri) or "."

    def link(found: re.Match[str]) -> str:
        place = _place(_folder(page.file.src_uri), found[1])
        return f"]({posixpath.relpath(place, here)}{found[2] or ''})"

    return LINK.sub(link, markdown)


def _folder(uri: str) -> str:
    """The folder of the repository in which the source of a page stands."""
    source = next((source for source, name in PAGES.items() if name == uri and name != "index.md"), f"docs/{uri}")
    return posixpath.dirname(source)


def _place(folder: str, target: str) -> str:
    """Where the site has the file to which a page in this folder of the repository links."""
    path = posixpath.normpath(posixpath.join(folder, target))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PAGES.get(path, f"repository/{path}")
