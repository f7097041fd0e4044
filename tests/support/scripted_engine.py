"""An engine whose answers are written down: each request takes the next one."""

from collections.abc import AsyncIterator, Sequence

import orjson

from anthro_asgi import BaseEngine, Batch, Delta, Finish, MessagesRequest, ToolJson, ToolStart, Usage

Step = Batch | Exception


class ScriptedAnswers(BaseEngine):
    """Gives `answers` one after the other: yields the batches and raises the exceptions. Keeps the requests.

    Attributes:
        requests: what it was asked.
        open: answers that are not closed.
    """

    def __init__(self, *answers: Sequence[Step]) -> None:
        self.answers = list(answers)
        self.requests: list[MessagesRequest] = []
        self.open = 0

    def call_repair(self) -> None:
        """None: an answer is what the script says, also with arguments that are not JSON."""

    async def stream(self, request: MessagesRequest) -> AsyncIterator[Batch]:
        self.requests.append(request)
        self.open += 1
        try:
            for step in self.answers.pop(0):
                if isinstance(step, Exception):
                    raise step
                yield step
        finally:
            self.open -= 1


def call(name: str, arguments: object = None, identity: str = "call_1") -> list[Delta]:
    """The deltas of a call. `arguments` are written as JSON; a str is taken as it is."""
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return [ToolStart(identity, name), ToolJson(text[:5]), ToolJson(text[5:])]


def calling(*calls: list[Delta], text: str = "", counts: tuple[int, int] = (100, 10)) -> list[Step]:
    """An answer with a text and calls, and its usage."""
    steps: list[Step] = [text] if text else []
    return [*steps, *calls, [Usage(*counts), Finish("tool_use")]]


def saying(text: str, counts: tuple[int, int] = (200, 20)) -> list[Step]:
    """An answer that is a text, in two pieces, and its usage."""
    return [text[:3], text[3:], [Usage(*counts), Finish("end_turn")]]
