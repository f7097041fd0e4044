"""Default values that the option table of `settings` shares with the classes that take them.

`http` and `settings` may not import each other, so a default that both need stands here, once. Sizes are in bytes,
durations in seconds.
"""

from typing import Final

_MIB: Final = 1 << 20

PING_INTERVAL: Final = 10.0
MAX_BODY: Final = 32 * _MIB
MAX_DECOMPRESSED: Final = 32 * _MIB
MAX_BODY_MEMORY: Final = 256 * _MIB
MAX_BODY_MEMORY_PER_KEY: Final = 128 * _MIB
MAX_EXPANSION: Final = 3.5
"""Memory that the values of a large body may take, as a multiple of its size."""

GC_GROWTH: Final = 256 * _MIB

MAX_CONCURRENCY: Final = 1024
MAX_QUEUE: Final = 1024
QUEUE_TIMEOUT: Final = 5.0
TOTAL_DEADLINE: Final = 3600.0

BATCH_CONCURRENCY: Final = 16
BATCH_LEASE: Final = 30.0
BATCH_LATENESS: Final = 0.005
MAX_BATCH: Final = 256 * _MIB
MAX_FILE: Final = 32 * _MIB
MAX_FILES_PER_KEY: Final = 1024 * _MIB

MAX_EVENT: Final = 16 * _MIB
MAX_TOOL_INPUT: Final = 16 * _MIB
MAX_ANSWER: Final = 64 * _MIB

CACHE_DIAGNOSTICS_ANSWERS: Final = 1000

MAX_DEPTH: Final = 100
"""Levels of JSON. orjson reads 1024 levels and writes 254, and a recursive walk uses one stack frame for each."""
MAX_MESSAGES: Final = 100_000
MAX_TOOLS: Final = 1024
MAX_STOP_SEQUENCES: Final = 64
"""Clients send a handful. What is done for them before an answer grows with the square of their number."""
