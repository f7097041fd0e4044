"""Fuzzing: inputs nobody would send, a million at a time, and what must hold for each of them.

    python -m tests.checks.fuzz bodies  --count 1000000     mutated requests, through all that is done with one
    python -m tests.checks.fuzz streams --count 1000000     mutated answers of engines, likewise

A trial is drawn from the seed, its index and nothing else, so that `--only INDEX` repeats one. A failure is told with
that command and with the smallest input found that still fails in the same way; nothing is written to disk. What was
found so far is in `test_found.py`.

    mutation   what is done to a JSON value, and to bytes
    requests   valid requests to begin with
    bodies     a trial with a request, and what must hold
    recordings recorded answers to begin with
    streams    a trial with an answer, and what must hold
    beside     what engines say that is no answer
    answers    the two ways an answer takes to the client, and how their ends are held against each other
    served     the service, called in this process
    running    many trials in several processes; the smallest input that fails
"""
