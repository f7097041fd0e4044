"""Engines: what answers a request."""
