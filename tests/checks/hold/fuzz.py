"""A search for the request bodies and answers that hold the event loop for the longest time."""

import random
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from tests.checks.hold import BAR
from tests.checks.hold.application import MIB, Application, scale
from tests.checks.hold.shapes import PLACES, Recipe, drawn, mutated

LONGEST: Final = 0.05  # seconds of CPU for any case; BAR for one of at most a MiB
_KEPT: Final = 12  # recipes that are mutated further
_FRESH: Final = 0.3  # of all trials
_CONFIRM: Final = 4  # repetitions of a case that seems too long


class Find(NamedTuple):
    """A recipe, the seconds of CPU that it held the loop, the bytes of its case, and the status of the response."""

    seconds: float
    size: int
    status: int
    recipe: Recipe

    @property
    def is_within_bounds(self) -> bool:
        """Whether the hold is short enough. A body that was refused need not be."""
        return self.seconds <= (BAR if self.size <= MIB else LONGEST) * scale()

    def __str__(self) -> str:
        return f"{self.seconds * 1e3:7.2f} ms  {self.size:>9,} bytes  {self.status}  {self.recipe}"


def search(seconds: float, seed: int, told: Callable[[Find], object], places: tuple[str, ...] = PLACES) -> list[Find]:
    """The worst finds, worst first. `told` is called with each that is worse than all before."""
    source = random.Random(seed)
    kept: list[Find] = []
    end = time.monotonic() + seconds
    with Application() as application:
        application.hold(Recipe(size=4096).case())  # imports, and code that runs once
        while not kept or time.monotonic() < end:
            is_fresh = not kept or source.random() < _FRESH
            recipe = drawn(source, places) if is_fresh else mutated(source, source.choice(kept).recipe)
            find = measured(application, recipe)
            if not kept or find.seconds > kept[0].seconds:
                told(find)
            kept = sorted({*kept, find}, key=lambda one: -one.seconds)[:_KEPT]
        return [find if find.is_within_bounds else measured(application, find.recipe, _CONFIRM) for find in kept]


def measured(application: Application, recipe: Recipe, repetitions: int = 1) -> Find:
    """What the recipe holds the loop for. A long hold is measured again: noise only adds to it."""
    case = recipe.case()
    hold = application.hold(case, repetitions)
    find = Find(hold.seconds, case.size, hold.status, recipe)
    if repetitions == 1 and not find.is_within_bounds:
        return measured(application, recipe, _CONFIRM)
    return find
