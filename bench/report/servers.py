"""The servers as a reader meets them: in which order, by which name, and what each is to us."""

from collections.abc import Iterable
from typing import Final

from .records import DIRECT, Cost, Fairness, Grammar, Memory, Missing, Records, Run

FLOOR: Final = "relay"
OURS: Final = "ours-fast"
OURS_BARE: Final = "ours-h11"
NGINX: Final = "nginx"
ROUTER: Final = "ccr"
LITELLM: Final = "litellm"

_ORDER: Final = (DIRECT, FLOOR, NGINX, OURS, OURS_BARE, ROUTER, LITELLM)
_NAMES: Final = {
    DIRECT: "the engine directly",
    FLOOR: "byte relay",
    NGINX: "nginx",
    OURS: "ours, fast",
    OURS_BARE: "ours, h11",
    ROUTER: "claude-code-router core",
    LITELLM: "LiteLLM proxy",
}


def ordered(servers: Iterable[str]) -> list[str]:
    """Each once: the ones we know in the order of the argument (floor, ours, peers), then the others by name."""
    unique = set(servers)
    return [name for name in _ORDER if name in unique] + sorted(unique.difference(_ORDER))


def named(records: Records, server: str) -> str:
    """What the records call it, else what we do."""
    labels = (run.label for run in records.of(Run) if run.server == server)
    return next(labels, _NAMES.get(server, server))


def role(server: str) -> str:
    """`ours`, `floor`, `direct` or `peer`: the only thing a colour tells."""
    if server in (OURS, OURS_BARE):
        return "ours"
    return {FLOOR: "floor", DIRECT: "direct"}.get(server, "peer")


def mentioned(records: Records) -> list[str]:
    """Every server that any record speaks of, in order."""
    kinds = (Run, Missing, Grammar, Cost, Memory, Fairness)
    return ordered(record.server for record in records.found if isinstance(record, kinds))
