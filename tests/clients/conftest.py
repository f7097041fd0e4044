"""The scenarios need installed clients and a network namespace: only `python -m tests.clients` collects them."""

import os
from typing import Final

SWITCH: Final = "ANTHRO_ASGI_TESTS_CLIENTS"

collect_ignore_glob = [] if os.environ.get(SWITCH) else ["test_*.py"]
