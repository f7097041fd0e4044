"""A conformance suite for servers of the Anthropic Messages API, and the grammar of their streams.

`anthro-asgi conformance URL` runs it, and so does `pytest --pyargs anthro_asgi.conformance --server URL`.
"""
