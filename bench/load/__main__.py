"""`python -m bench.load URL`: the same as `python -m bench load URL`."""

import argparse
import sys

from . import add_arguments, main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench load")
    add_arguments(parser)
    sys.exit(main(parser.parse_args()))
