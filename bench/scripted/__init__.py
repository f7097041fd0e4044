"""`python -m bench.scripted`: an OpenAI-compatible engine whose tokens are the time at which they are written.

The first line on stdout is `listening on http://HOST:PORT`. It answers `GET /v1/models` and `POST
/v1/chat/completions`. A stream is a role chunk, `max_tokens` content chunks of one token and one write each, a finish
chunk, the usage if requested, and `[DONE]`. The text of a token is a space and `time.monotonic_ns()`, so a client on
the same machine knows how long the token was in transit. The model `unpaced` is never paced.
"""
