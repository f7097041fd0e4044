"""llama.cpp's own server as the one process of a container: `python -m tests.support.llama.contained MODEL --port N`.

It serves on loopback, for what is in the same pod, until SIGTERM.
"""

import os
import signal

from tests.support.llama.server import main


def last_until(number: int) -> None:
    """Make that signal end the server: it writes a byte to what is now standard input.

    The C handler writes it, at once. A Python handler runs between two bytecodes only: if the signal came just before
    the read of standard input began, it would never run.
    """
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    signal.signal(number, lambda *_: None)  # with the default action the process would end with another status


if __name__ == "__main__":
    last_until(signal.SIGTERM)
    main()
