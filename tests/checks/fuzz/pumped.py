"""Mutated answers of engines through a pump: the client gets the same bytes as without one. The target `pumped` is for
the native pump, `python` for the one in Python.

The answers are those of `streams` and random tool calls, in HTTP chunks that are cut at events, at random or at both,
and sometimes mangled. They arrive in reads that are cut at random.
"""

from dataclasses import dataclass
from random import Random
from typing import ClassVar

from anthro_asgi._native import NewPump
from anthro_asgi.engines.openai.python_pump import PythonPump
from anthro_asgi.wire.answer_limits import DEFAULT_LIMITS
from tests.checks.fuzz.mutation import SCRAPS, Stock, cut, mangle
from tests.checks.fuzz.native_module import new_pump
from tests.checks.fuzz.recordings import Recorded, chunks, recorded
from tests.checks.fuzz.running import Breach
from tests.checks.fuzz.streams import WORDS, changed, shortened
from tests.support import tool_pieces
from tests.support.pumped import HEAD, Relay, framed, relayed

_STRINGS = (b'"', b"\\", b"\\n", b"\\/", b"\\u0041", b"\\u001f", b"\\u00e9", b"\xc3\xa9", b"\xf0\x9f\x99\x82", b"\x7f")


@dataclass(frozen=True, slots=True)
class Trial:
    """`data` is the body in HTTP chunks. `at_random` seeds the places where it is cut into reads."""

    data: bytes
    max_event: int
    at_random: int


class Pumped:
    """See the module."""

    name = "pumped"
    pump: ClassVar[NewPump | None] = new_pump

    def __init__(self) -> None:
        if self.pump is None:
            raise RuntimeError("the extension module is not built: pip install -e . needs a C compiler")
        self._recorded = [answer for answer in recorded() if answer.api == "chat" and answer.streamed]
        self._stock = Stock(chunks("chat"), WORDS)

    def draw(self, rng: Random) -> Trial:
        if rng.random() < 0.4:
            events = tool_pieces.stream(rng)
        else:
            events = [event + b"\n\n" for event in self._events(rng.choice(self._recorded), rng)]
        if rng.random() < 0.3:
            events = [_spoiled(event, rng) if rng.random() < 0.2 else event for event in events]
        body = b"".join(events)
        match rng.randrange(6):
            case 0:
                bodies = cut(body, rng) if body else []
            case 1:
                bodies = [b"".join(events[at : at + 3]) for at in range(0, len(events), 3)]
            case _:
                bodies = events
        data = framed(*bodies) + (b"0\r\n\r\n" if rng.random() < 0.8 else b"")
        if rng.random() < 0.2:
            data = mangle(data, rng)
        max_event = rng.choice((100, 300, 600)) if rng.random() < 0.05 else DEFAULT_LIMITS.max_event
        return Trial(data, max_event, rng.getrandbits(32))

    def _events(self, answer: Recorded, rng: Random) -> list[bytes]:
        """Mostly the events of a recording as they are, because mutated ones match no template."""
        events = shortened(answer, rng)
        if rng.random() < 0.4:
            events = changed(events, rng.choice(self._recorded), self._stock, rng)
        if rng.random() < 0.3 and events:
            at = rng.randrange(len(events))
            events[at:at] = [events[at]] * rng.choice((2, 40))
        return events

    def check(self, trial: Trial) -> str:
        reads = self._reads(trial)
        expected = relayed(reads, pumped=False, max_event=trial.max_event)
        relay = Relay(pumped=True, max_event=trial.max_event, new_pump=self.pump)
        for data in (HEAD, *reads):
            relay.receive(data)
        found = relay.end()
        if found != expected:
            raise Breach(f"a pump relays what Python relays\n{found}\n{expected}")
        how = "tool input pumped" if relay.pumped_input else "pumped" if relay.pumped else "not pumped"
        return f"{how}, {'complete' if found.end == 'complete' else 'broken off'}"

    def _reads(self, trial: Trial) -> list[bytes]:
        rng = Random(trial.at_random)
        if rng.random() < 0.5:
            return [piece for piece in cut(trial.data, rng) if piece]
        # as engines write: one chunk in each read
        reads = trial.data.split(b"\n\n\r\n")
        return [read for read in [*(part + b"\n\n\r\n" for part in reads[:-1]), reads[-1]] if read]


class PumpedByPython(Pumped):
    """See the module."""

    name = "python"
    pump = PythonPump


def _spoiled(event: bytes, rng: Random) -> bytes:
    """Something inserted into a string of the event."""
    quotes = [at for at, byte in enumerate(event) if byte == 0x22]
    if not quotes:
        return event
    at = rng.choice(quotes) + rng.choice((0, 1))
    scrap = b"".join(rng.choices(_STRINGS, k=rng.choice((1, 1, 2)))) if rng.random() < 0.7 else rng.choice(SCRAPS)
    return event[:at] + scrap + event[at:]
