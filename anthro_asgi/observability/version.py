"""The version of the package. `pyproject.toml` takes it from here: reading an installed package's metadata is slow."""

from typing import Final

VERSION: Final = "0.2.0"
