"""`python -m anthro_asgi`, the same as `anthro-asgi`."""

import sys

from .cli import main

sys.exit(main())
