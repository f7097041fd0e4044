"""`anthro-asgi bench load URL`: sends load to a server, and measures it."""
