"""`python -m bench.report`: the same as `python -m bench report`."""

import argparse
import sys

from . import add_arguments, main

parser = argparse.ArgumentParser(prog="python -m bench.report", description="Result files as a page and as tables.")
add_arguments(parser)
sys.exit(main(parser.parse_args()))
