"""The claims of docs/explanation/security.md, tested with real processes and real sockets.

Tests of input that comes before authentication run on both HTTP parsers.
"""
