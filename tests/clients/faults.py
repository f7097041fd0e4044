"""The faults of engines and clients that users reported, and that a scenario of `tests/clients` plays.

Each scenario names its faults: `@pytest.mark.fault("A4")`. `tests/test_client_faults.py` fails for a fault without a
scenario.

    A   ends a session for good, because the turn that broke stays in the history
    B   the answer is silently another one than the client asked for
    D   seen on real engines
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Fault:
    """`what` goes wrong, and the `clauses` of the wire contract that say what is right."""

    what: str
    clauses: tuple[str, ...]


FAULTS: Final[dict[str, Fault]] = {
    "A1": Fault("vLLM reserves prompt and max_tokens, and its refusal tells only a lower bound", ("7.7",)),
    "A2": Fault("a template refuses two turns of one role, or a user turn after a tool result", ("3.37",)),
    "A3": Fault("an engine demands its own reasoning back, beside each call of the history", ("3.40",)),
    "A4": Fault("tool arguments are JSON, but not an object", ("5.10", "5.18")),
    "A5": Fault("tool arguments begin with {} and the real ones follow", ("5.10",)),
    "A6": Fault("a last chunk repeats a call that was already complete", ("5.10",)),
    "A7": Fault("a call without a name and arguments stands beside a good one", ("6.13",)),
    "A8": Fault("the model reads no images or PDFs, and the refusal stays in the history", ("7.8",)),
    "A9": Fault("tools are added and removed during a conversation", ("3.33",)),
    "A10": Fault("the history holds blocks of the current Anthropic API", ("3.32", "3.34")),
    "A11": Fault("an answer broke off with a finish reason of the vendor's own", ("4.4", "4.5", "4.6")),
    "A12": Fault("tool arguments are not JSON, but have one reading", ("4.6",)),
    "B13": Fault("the client sends its output schema as output_format, or tools with strict", ("3.12", "3.19")),
    "B14": Fault("a deferred tool is offered although nothing has loaded it", ("3.13",)),
    "B15": Fault("a field has no effect, and the answer does not say so", ("3.21", "3.22")),
    "B16": Fault("web search is dropped and its results are invented", ("3.16",)),
    "B17": Fault("thinking between tools is refused, or an effort switches disabled thinking on", ("3.9",)),
    "B18": Fault("usage stands in another place, or a last zero replaces it", ("4.11", "6.7")),
    "B19": Fault("calls and text come in another choice than 0", ("6.13",)),
    "B20": Fault("reasoning comes after the text, and the client shows an empty answer", ("5.11",)),
    "B21": Fault("an error with status 200, or with a code in words, loses its meaning", ("6.12", "7.9")),
    "B22": Fault("top_k is dropped for an engine that the service does not know", ("3.6",)),
    "B23": Fault("a schema without properties, strict, or null content is refused", ("3.12", "3.39")),
    "B24": Fault("a document runs into the question; pages of models and doubled slashes fail", ("3.38", "9.3", "1.2")),
    "B25": Fault("a relay loses fields and headers that the upstream would serve", ("3.14",)),
    "D27": Fault("the engine matches a stop sequence inside a tool's input", ("4.9",)),
    "D28": Fault("the engine takes at most four stop strings", ("4.8",)),
    "D29": Fault("the engine refuses top_p 0", ("3.6",)),
    "D30": Fault("an engine is not recognised, and refuses the fields of another one", ("8.5",)),
    "D31": Fault("content null beside calls is a 500, and a streamed overflow is an empty 200", ("3.39", "7.6")),
    "D32": Fault("the check fails on a Messages API, and does not notice that tools are off", ("8.1",)),
    "D34": Fault("a relay loses the limits of models, and what a count depends on", ("7.7", "10.1")),
    "D35": Fault("the count of tokens written to a cache is lost", ("4.10",)),
}
