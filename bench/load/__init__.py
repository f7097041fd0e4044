"""`python -m bench load URL`: load for any server of the Messages API, and what it does to it.

client, counting  one connection; the tokens in what it hears
asking            the requests
arrivals          when they come, in the open loop
exchange, lines   one request and its answer; the connections
runner            closed loop and open loop, warm-up and end
samples, tally    percentiles; what is counted, and when
report, progress  what is said of it, afterwards and meanwhile
ceiling, canned   the highest rate of this program itself
"""

from .command import add_arguments, main

__all__ = ["add_arguments", "main"]
