"""Option types of the bench's commands."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on. Raises argparse.ArgumentTypeError or ValueError."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number
