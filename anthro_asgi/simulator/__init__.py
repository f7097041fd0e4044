"""Tokens on a clock, seeded: an engine without a model, for clients' tests and for latency benchmarks.

Theory. An answer is planned whole before its first token, so the loop that plays it does nothing but wait and yield,
and what is measured is the service around it. The plan has three parts, each from its own source:

    what is said       the seed and what an engine would read of the request       answer, prose, trace
    what befalls it    these, and how often the very same was asked before         spread, faults
    how long it takes  the profile, what is cached, and how many others run        profile, prefix_cache, gate

Rules. Two requests that differ in `stream`, `user_id` or `stop_sequences` get the same tokens, and a smaller
`max_tokens` cuts the same answer sooner. Who asks again after a failure gets another draw, and the same one in every
run, whatever others asked meanwhile. Each token has its moment on an absolute clock: a late one does not make the next
one late, and who was kept waiting gets all that is due as one batch, as from an engine whose chunks piled up in a
socket. Every delta but Usage and Finish counts as one token, a call's head included. Stop sequences are matched by the
service, over any engine's text.
"""

from .clock import Clock, LoopClock, Nap
from .distributions import SHAPES, Shape, Spread
from .engine import SimulatedEngine
from .failures import KINDS, Faults
from .profile import Profile
from .recordings import Recorded, read_trace

__all__ = [
    "KINDS",
    "SHAPES",
    "Clock",
    "Faults",
    "LoopClock",
    "Nap",
    "Profile",
    "Recorded",
    "Shape",
    "SimulatedEngine",
    "Spread",
    "read_trace",
]
