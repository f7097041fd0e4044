"""How long request bodies of hostile shapes hold the event loop: those of `tests.checks.memory`, at any size."""

from collections.abc import Callable, Iterable
from typing import Final

from tests.checks.hold import BAR
from tests.checks.hold.application import MIB, Application, Case, Hold, scale
from tests.checks.hold.fuzz import LONGEST
from tests.checks.memory import SHAPES

_REPETITIONS: Final = 4  # of a body that seems to hold for too long: noise only adds to a hold
MAX_BODY: Final = 48 * MIB
"""A limit for the application under which each shape of 32 MiB is read: some are a little larger."""
WORST: Final = (
    "tools that can be searched",
    "fields of the body",
    "an array of fractions",
    "tiny strings",
    "escapes",
    "small texts with an emoji",
    "tool calls",
    "folded messages",
    "folded blocks",
    "blocks of a tool result",
    "one image",
)
"""Those that once held the loop for too long."""


def holds(
    shapes: Iterable[str], size: int, report: Callable[[str, int, Hold], object] = lambda *_: None
) -> dict[str, Hold]:
    """The hold of each shape with about `size` bytes. `report` is called after each, with the size of the body."""
    found: dict[str, Hold] = {}
    with Application(max_body=MAX_BODY, max_decompressed=MAX_BODY) as application:
        application.hold(Case(SHAPES["small messages"](size)))  # imports, and code that runs once
        for shape in shapes:
            case = Case(SHAPES[shape](size))
            found[shape] = held = application.hold(case)
            if not is_within_bounds(held, len(case.request)):
                found[shape] = min(held, application.hold(case, _REPETITIONS))
            report(shape, len(case.request), found[shape])
    return found


def is_within_bounds(held: Hold, size: int) -> bool:
    """Whether a body of `size` bytes holds the loop shortly enough. A refused one counts, too."""
    return held.seconds <= (BAR if size <= MIB else LONGEST) * scale()
