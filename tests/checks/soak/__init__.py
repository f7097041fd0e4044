"""`python -m tests.checks.soak`: the real command in front of a failing engine, with clients that leave.

    python -m tests.checks.soak [--seconds 600] [--streams 1000] [--seed N] [--rate 5] [--workers 2]
        [--native auto|on|loop|off]

This many streams are open at any time, paced like real engines. A few more clients ask for whole answers, token counts
and models, and send invalid requests. One answer in four is a tool call. The engine breaks one answer in seven, in one
of eighteen ways; one client in seven disconnects early. Beside them are hostile guests (see `guests`). The exit status
is 1 when an invariant does not hold:

    answers    every answer has all tokens that the engine wrote and keeps the grammar, or is the error of its fault
    memory     the resident set at the end is at most 3 % above that after a minute of full load (8 % in a run of
               less than five minutes)
    files      after the last client, as many open files as before the first request; likewise threads
    in flight  after the last client, no request and no pooled connection is left (from `/metrics`)
    log        no traceback, no error, and no content of a request
    end        the service stops after SIGTERM

    faults     the engine's faults, and the error that a client receives for each
    engine     the scripted engine that commits them
    turns      the next request of a client
    judging    whether an answer is correct
    clients    the clients
    guests     what goes on beside the clients
    service    the service as a process, observed from outside
    watch      the samples, and the invariants
"""

from .command import add_arguments, main

__all__ = ["add_arguments", "main"]
