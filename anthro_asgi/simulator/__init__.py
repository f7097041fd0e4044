"""A simulated engine: no model, seeded tokens on a clock, for tests of clients and for latency benchmarks.

Theory. An answer is planned completely before its first token. The loop that plays it only waits and yields, so a
measurement measures the service around it. The plan has three parts, each from its own source:

    content   the seed and what an engine would read of the request          answer, prose, recordings
    failure   the same, and how often an equal request came before           failures, seeds
    timing    the profile, the cached prefix, the number of running answers  profile, prefix_cache, queue

Rules. Two requests that differ only in `stream`, `user_id` or `stop_sequences` get the same tokens; a smaller
`max_tokens` cuts the same answer earlier. A client that asks again after a failure gets another draw, and the same draw
in every run. Each token has its time on an absolute clock: a late token does not delay the next one, and tokens that
are overdue leave together as one batch, like chunks that piled up in a socket. Every delta except Usage and Finish
counts as one token, the start of a tool call included. Stop sequences are matched by the service, as for
any other engine.

The files chat_app, chat_response, chat_request and chat_encoder serve the same engine as a chat-completions server.
"""

from .clock import Clock, LoopClock, Sleeper
from .distributions import SHAPES, Distribution, Shape
from .engine import SimulatedEngine
from .failures import FAILURE_KINDS, FailureRates
from .profile import Profile
from .recordings import RecordedAnswer, read_trace

__all__ = [
    "FAILURE_KINDS",
    "SHAPES",
    "Clock",
    "Distribution",
    "FailureRates",
    "LoopClock",
    "Profile",
    "RecordedAnswer",
    "Shape",
    "SimulatedEngine",
    "Sleeper",
    "read_trace",
]
