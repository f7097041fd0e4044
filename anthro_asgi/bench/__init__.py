"""`anthro-asgi bench`: a load generator for any server of the Messages API or of chat completions, and its reports."""
