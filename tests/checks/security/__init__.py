"""The claims of the README's section "Security", tested with real processes and real sockets.

Tests of input that comes before authentication run on both HTTP parsers.
"""
