"""The table of sizes in `docs/how-to/scale-out.md` follows from the rule above it."""

import re
from math import ceil
from typing import Final

from tests.docs.pages import PAGES

PAGE: Final = PAGES["how-to/scale-out.md"]
TOKEN: Final = 50e-6  # seconds of CPU
STREAM: Final = 27 / 1024  # MiB
WORKER: Final = 40.0  # MiB
WORKERS: Final = 4  # of a pod
BUSY: Final = 0.6


def test_each_row_of_the_table_of_sizes_follows_from_its_streams_and_their_rate() -> None:
    text = " ".join(PAGE.split())
    assert f"m = {STREAM * 1024:g} KiB" in text
    assert f"c = {TOKEN * 1e6:g} µs" in text
    assert f"{WORKER:g} MiB per worker" in text
    rows = re.findall(r"^\| (\d[^|]*(?:\|[^|\n]*){6})\|$", PAGE, re.MULTILINE)
    assert len(rows) == 6
    for row in rows:
        cells = [cell.strip().replace(" ", "") for cell in row.split("|")]
        streams, rate = int(cells[0]), int(cells[1])
        busy = streams * rate * TOKEN
        cores = ceil(busy / BUSY)
        pods = ceil(cores / WORKERS)
        memory = (pods * WORKERS * WORKER + streams * STREAM) / 1024
        expected = [f"{streams * rate}", f"{busy:g}", f"{cores}", f"{pods}"]
        assert cells[2:6] == expected
        assert cells[6].endswith("GiB")
        assert f"{float(cells[6][:-3]):.2g}" == f"{memory:.2g}"
