"""The command: see the package."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.checks.fuzz.bodies import Bodies
from tests.checks.fuzz.converted import Converted
from tests.checks.fuzz.native_module import build, sanitized_environment
from tests.checks.fuzz.pumped import Pumped, PumpedByPython
from tests.checks.fuzz.running import Tally, Target, draw, made, report, run, run_chunk, tell
from tests.checks.fuzz.streams import Streams
from tests.checks.fuzz.threaded import Threaded

_EVERY = 10.0  # seconds between lines of progress
TARGETS: dict[str, type[Target]] = {
    "bodies": Bodies,
    "converted": Converted,
    "pumped": Pumped,
    "python": PumpedByPython,
    "streams": Streams,
    "threaded": Threaded,
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.checks.fuzz", description="Inputs nobody would send.")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="trials (default 100000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="same seed, same trials (default 0)")
    parser.add_argument("--start", type=int, default=0, metavar="INDEX", help="of the first trial (default 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: cores)")
    parser.add_argument("--only", type=int, metavar="INDEX", help="this trial alone")
    parser.add_argument("--sanitized", action="store_true", help="the native path with ASan and UBSan (needs gcc)")
    return parser.parse_args()


class _Progress:
    """Print progress and each new failure on standard error."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._told = 0
        self._due = monotonic() + _EVERY

    def __call__(self, tally: Tally) -> None:
        for failure in tally.failures[self._told :]:
            print(f"{failure.index}: {failure.kind}", file=sys.stderr, flush=True)
        self._told = len(tally.failures)
        if monotonic() >= self._due:
            self._due = monotonic() + _EVERY
            print(f"{tally.trials:,} of {self._count:,}, {len(tally.failures)} failures", file=sys.stderr, flush=True)


def main() -> int:
    options = _options()
    if options.sanitized:
        return _sanitized()
    kind = TARGETS[options.target]
    if options.only is not None:
        return _repeat(kind, options.seed, options.only)
    began = monotonic()
    progress = _Progress(options.count)
    tally = run(kind, options.seed, options.count, start=options.start, jobs=options.jobs, told=progress)
    report(made(kind), options.seed, tally, monotonic() - began)
    return 1 if tally.failures else 0


def _sanitized() -> int:
    """The same command in a process whose native path is compiled with sanitizers; its exit status."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--sanitized"]
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        environment = sanitized_environment(build(Path(folder)))
        command = [sys.executable, "-m", "tests.checks.fuzz", *arguments]
        return subprocess.run(command, env=environment, check=False).returncode


def _repeat(kind: type[Target], seed: int, index: int) -> int:
    print(draw(made(kind), seed, index))
    tally = run_chunk(kind, seed, [index])
    for failure in tally.failures:
        tell(made(kind), seed, failure)
    print(*tally.outcomes)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
