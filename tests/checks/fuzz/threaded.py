"""Mutated answers of engines through the thread of the native path: the same as `pumped`, with two sockets."""

from random import Random
from typing import Final

from tests.checks.fuzz.native_module import new_thread
from tests.checks.fuzz.pumped import Pumped, Trial
from tests.checks.fuzz.running import Breach
from tests.support.pumped import HEAD, relayed
from tests.support.threaded import ThreadRelay

_MOST_READS: Final = 200  # after which a stream breaks off: the thread pauses for a millisecond after each of many


class Threaded(Pumped):
    """See the module. In half of the trials the client reads rarely, so that writes are cut."""

    name = "threaded"

    def check(self, trial: Trial) -> str:
        reads = self._reads(trial)
        del reads[_MOST_READS:]
        expected = relayed(reads, pumped=False, max_event=trial.max_event)
        rng = Random(trial.at_random)
        assert new_thread is not None
        thread = new_thread()
        relay = ThreadRelay(thread, rng, narrow=rng.random() < 0.5, max_event=trial.max_event)
        try:
            for data in (HEAD, *reads):
                relay.receive(data)
            found = relay.end()
        finally:
            relay.close()
            thread.close()
        if found != expected:
            raise Breach(f"the thread relays what Python relays\n{found}\n{expected}")
        how = "by the thread" if relay.pumped else "by Python"
        return f"{how}, {'complete' if found.end == 'complete' else 'broken off'}"
