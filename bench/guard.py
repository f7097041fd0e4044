"""`python -m bench guard`: the bars with half of them on top, best of five; for CI, where the machine is anybody's.

Exit status 1 when a ratio is past its guard.
"""

from typing import Final

from . import micro

_MARGIN: Final = 1.5
_TRIES: Final = 5
_ROUNDS: Final = 9


def run() -> int:
    """Measure, print, and say with the exit status whether all is well."""
    best = min(micro.measure(_ROUNDS)["text(str)"].ratio for _ in range(_TRIES))
    limit = micro.BAR * _MARGIN
    held = best <= limit
    print(f"{'ok' if held else 'FAILED'}: encoder text delta {best:.2f} x orjson.dumps (guard {limit:.2f})")
    return 0 if held else 1
