"""`python -m anthro_asgi`, the same as the command `anthro-asgi`."""

import sys

from .cli.main import main

sys.exit(main())
