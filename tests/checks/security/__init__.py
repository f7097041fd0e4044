"""The README's section "Security", claim by claim, against real processes and real sockets.

What a stranger can send before it has shown a key is tested on both HTTP parsers that the service may stand on.
"""
