"""`python -m bench.peers`: the same as `python -m bench peers`."""

import argparse
import sys

from . import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description="This service beside its peers.")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
