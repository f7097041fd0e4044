"""The version of the installed package."""

from functools import cache


@cache
def version() -> str:
    """The installed version; "unknown" in a copy that is not installed."""
    from importlib import metadata  # slow to import and rarely needed

    try:
        return metadata.version("anthro-asgi")
    except metadata.PackageNotFoundError:
        return "unknown"
