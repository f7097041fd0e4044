"""`python -m tests.clients [WORD …]`: run the scenarios whose names hold all the words."""

import os
import sys
from collections.abc import Sequence

from tests.clients.conftest import SWITCH
from tests.clients.install import install
from tests.clients.namespace import run_without_network
from tests.clients.sdk_tests import install as sdk_tests


def main(words: Sequence[str]) -> int:
    """The exit status of pytest."""
    install()
    sdk_tests.install()
    os.environ[SWITCH] = "1"
    chosen = ("-k", " and ".join(words)) if words else ()
    options = ("-p", "no:cacheprovider", "-n", "2", "--durations", "5")
    return run_without_network([sys.executable, "-m", "pytest", *options, *chosen, "tests/clients"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
