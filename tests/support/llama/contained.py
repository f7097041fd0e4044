"""llama.cpp's own server as the one process of a container: `python -m tests.support.llama.contained MODEL --port N`.

It serves on loopback, for what is in the same pod, until SIGTERM.
"""

import os
import signal

from tests.support.llama.server import main


def last_until(number: int) -> None:
    """End standard input, which ends the server, on that signal."""
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    signal.signal(number, lambda *_: os.close(writing))


if __name__ == "__main__":
    last_until(signal.SIGTERM)
    main()
