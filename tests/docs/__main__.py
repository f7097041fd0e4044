"""`python -m tests.docs [--write]`: name the pages whose generated parts are not current, or renew them."""

import argparse
import sys

from tests.docs.generated import renewed
from tests.docs.pages import DOCS, PAGES


def main() -> int:
    """The exit status: 1 if a page is not current and was not written."""
    parser = argparse.ArgumentParser(prog="python -m tests.docs", description="renew what is generated in docs/")
    parser.add_argument("--write", action="store_true", help="write the pages; without it, only name them")
    options = parser.parse_args()
    stale = {name: current for name, text in PAGES.items() if (current := renewed(text)) != text}
    for name, current in stale.items():
        print(f"docs/{name}: {'renewed' if options.write else 'not current'}")
        if options.write:
            (DOCS / name).write_text(current, "utf-8")
    return 1 if stale and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
