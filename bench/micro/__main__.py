"""`python -m bench.micro`: the same as `python -m bench micro`."""

import argparse
import sys

from . import add_arguments, main

parser = argparse.ArgumentParser(prog="python -m bench.micro", description="Nanoseconds an operation, and ratios.")
add_arguments(parser)
sys.exit(main(parser.parse_args()))
