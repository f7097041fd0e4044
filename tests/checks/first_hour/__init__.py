"""The first hour of six kinds of user: each script does the steps of its page in `docs/`, in a fresh environment.

    python -m tests.checks.first_hour                 all of them
    python -m tests.checks.first_hour embedder        one

    fresh       a copy of the checkout, a new virtual environment, commands and servers in it
    steps       the six scripts

A script takes the commands and the code from the page itself, so it fails when the page does not work. What it changes
is named in `fresh.Fresh.adapted`: the ports, and that the package comes from this checkout. It needs package registries
(PyPI; npm for Claude Code) and, for the browser, the program `chromium`.
"""
