"""Checks whether a server keeps the Messages wire format."""
