"""Option types of the bench's commands."""

import argparse


def positive(text: str) -> int:
    """A whole number from 1 on. Raises argparse.ArgumentTypeError or ValueError."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return number


def above_zero(text: str) -> float:
    """A finite number above 0. Raises argparse.ArgumentTypeError or ValueError."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value
