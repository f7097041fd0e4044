"""`python -m tests.checks.fuzz.pdfs`: mutated PDFs through the reader. Each is read or refused.

The words of a refusal are those of the contract. pdfium may crash or hang in its child process. Then the request must
get its error, and the next PDF must be read.
"""

import argparse
import asyncio
import json
import random
import re
import sys
from collections import Counter
from typing import Final

from anthro_asgi.http.pdf_reader import PdfMode, PdfReader
from anthro_asgi.wire.errors import InvalidRequest
from anthro_asgi.wire.request import parse_request
from anthro_asgi.wire.request_policy import Rules
from tests.support.pdf import document, pdf

SEEDS: Final = (pdf("Hello first", "Hello second"), pdf("a" * 60, "", "b"), pdf("locked", encrypted=True))
WORDS: Final = re.compile(
    r"messages\.0\.content\.0\.document\.source\.data: (could not process PDF: |the PDF specified was not valid"
    r"|the PDF specified is password protected|PDF cannot be empty|a maximum of 100 PDF pages )"
)
_NUMBERS: Final = (b"0", b"-1", b"1", b"255", b"65536", b"4294967295", b"99999999999999999999")
_NAMES: Final = (b"/Kids", b"/Length", b"/Parent", b"/Pages", b"/Font", b"/Contents", b"/Count", b"/Type", b"/Root")
_MODES: Final[tuple[PdfMode, ...]] = ("text", "images", "both")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """The PDF with some of its bytes, numbers and names changed."""
    for _ in range(chance.randint(1, 8)):
        at = chance.randrange(len(data) or 1)
        match chance.randrange(6):
            case 0:
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 64) :]
            case 2:
                data = data[:at] + data[at : at + 64] * chance.randint(1, 50) + data[at:]
            case 3:
                data = _with_another(rb"\d+", data, chance.choice(_NUMBERS), chance)
            case 4:
                data = _with_another(rb"/[A-Z]\w+", data, chance.choice(_NAMES), chance)
            case _:
                data = _with_another(rb"\d+ 0 R", data, b"%d 0 R" % chance.randrange(8), chance)
    return data


def _with_another(pattern: bytes, data: bytes, new: bytes, chance: random.Random) -> bytes:
    found = list(re.finditer(pattern, data))
    if not found:
        return data
    match = chance.choice(found)
    return data[: match.start()] + new + data[match.end() :]


async def fuzz(count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """The outcomes of `count` mutated PDFs, and what went wrong."""
    outcomes: Counter[str] = Counter()
    failures = []
    readers = {mode: PdfReader(mode) for mode in _MODES}
    for number in range(count):
        chance = random.Random(f"{seed}/{number}")
        data = mutated(chance.choice(SEEDS), chance)
        body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [document(data or b"x")]}]}
        request = parse_request(json.dumps(body).encode(), rules=Rules(pdfs="read"))
        try:
            await readers[chance.choice(_MODES)].read(request)
            outcomes["read"] += 1
            if request.messages[0]["content"][0]["source"]["type"] != "content":
                failures.append(f"{number}: not replaced")
        except InvalidRequest as exc:
            found = WORDS.match(exc.message)
            outcomes["other words" if found is None else found[1].strip(": ")] += 1
            if found is None:
                failures.append(f"{number}: {exc.message}")
    return outcomes, failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.checks.fuzz.pdfs", description="Mutated PDFs.")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="PDFs (default 1000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same PDFs (default 0)")
    options = parser.parse_args()
    outcomes, failures = asyncio.run(fuzz(options.count, options.seed))
    for outcome, times in outcomes.most_common():
        print(f"{times:6} {outcome}")
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
