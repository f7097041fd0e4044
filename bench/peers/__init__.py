"""`python -m bench peers`: this service beside the floor and its peers, on one scripted upstream, in one run.

Each peer is one adapter file that says how it is installed (`envs`), what it is told and how it is started; everything
else is the same for all. A peer that cannot be had, does not start, hangs or breaks the grammar is said to, on the
terminal and in the records: none is skipped in silence.
"""

from .runner import add_arguments, main

__all__ = ["add_arguments", "main"]
