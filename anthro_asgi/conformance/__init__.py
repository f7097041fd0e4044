"""Checks of the Messages wire format that hold for any server."""
