"""Fuzzing: millions of mutated inputs, and the rules that must hold for each.

    python -m tests.checks.fuzz bodies  --count 1000000     mutated requests
    python -m tests.checks.fuzz streams --count 1000000     mutated answers of engines
    python -m tests.checks.fuzz pumped --sanitized          the same through the native path, with ASan and UBSan
    python -m tests.checks.fuzz threaded --sanitized        the same through its thread
    python -m tests.checks.fuzz python --count 10000        the same through the pump in Python
    python -m tests.checks.fuzz converted --sanitized --count 1000000       its conversion alone

A trial depends on the seed and its index only, so `--only INDEX` repeats one. A failure is printed with that command
and with the smallest input that still fails in the same way. Nothing is written to disk. `test_found.py` keeps the bugs
that were found.

    mutation    mutations of JSON values and of bytes
    requests    the valid requests that are mutated
    bodies      a trial with a request, and its rules
    recordings  the recorded answers that are mutated
    streams     a trial with an answer, and its rules
    pumped      a trial with an answer that the native path relays, or the pump in Python
    threaded    the same with two sockets and the thread
    converted   a trial with chunks that it converts
    native_module   its extension module, also with sanitizers
    native_streams  its conversion without Python: `python -m tests.checks.fuzz.native_streams --count 1000000`
    native_thread   its thread without Python: `python -m tests.checks.fuzz.native_thread --count 1000000`
    beside      refusals and model lists of engines
    answers     the same answer as a stream and as a Message, compared
    served      the service in this process
    running     many trials in several processes; minimising
"""

from tests.checks.fuzz import native_module  # noqa: F401 - first: it may have to load another extension module
