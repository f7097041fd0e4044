"""What the model is asked when a conversation is compacted. This file holds the words and nothing else. Pure."""

from typing import Final

SUMMARY_PROMPT: Final = """\
The conversation above is about to be removed, because it has become too long. Your next message replaces it. You will
go on with the task from this summary alone, so write down everything that is needed to do so:

1. What the user asked for: the goal, all requirements and preferences, and what was asked last. Quote exact words where
   they matter.
2. What has been done so far, and with what result. Name files, functions, commands, URLs and other identifiers exactly.
3. What was learned: facts, decisions and their reasons, errors and how they were solved, things that did not work.
4. What is open: the current state, what you were doing just now, and the next steps.

Do not call any tool, and do not continue the task. Write the summary between <summary> and </summary>, and nothing
else.
"""
"""The `instructions` of `compaction` replace it. Those of a `compact_20260112` edit are added to it."""
