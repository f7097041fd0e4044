"""`python -m tests.checks.soak`: the real command in front of a failing engine, with clients that leave.

    python -m tests.checks.soak [--seconds 600] [--streams 1000] [--seed N] [--rate 5] [--workers 1]

At any time so many streams are open, paced as by people's engines and not saturated; a few clients more ask for whole
answers, counts, the models and for nonsense. One answer in seven is broken by the engine in one of eighteen ways, one
client in seven leaves. The exit status is 1 when an invariant is broken:

    answers    every answer is all that the engine wrote, by the grammar, or the one error that its fault makes
    memory     the resident set is at most 3 % more at the end than when all had been there for a minute
    files      as many as before the first request, once the last client has gone; threads likewise
    in flight  no request, and in the pool no connection, is left then (by `/metrics`)
    log        no traceback, no error, and nothing that a client said
    end        it stops when it is told to

    faults     what the engine does wrong, and what a client is told
    engine     the scripted engine that does it
    turns      what a client does next
    judging    whether an answer is the right one
    clients    all the clients
    service    the service as a process, and what it looks like from outside
    watch      what is looked at, and what must hold
"""

from .command import add_arguments, main

__all__ = ["add_arguments", "main"]
