"""`python -m bench.scripted`: an OpenAI-compatible engine that says nothing but what time it is, at next to no cost.

    python -m bench.scripted [--host 127.0.0.1] [--port 0] [--rate R] [--lockstep] [--tokens N]
                             [--style vllm|llamacpp|openai] [--usage-every-chunk] [--model NAME]

The first line on stdout is `listening on http://HOST:PORT`. It answers `GET /v1/models` and `POST
/v1/chat/completions`, whose stream is a role chunk, `max_tokens` content chunks of one token and one write each, a
finish chunk, the usage when it was asked for, and `[DONE]`. A token's text is a space and `time.monotonic_ns()` at its
writing, so whoever reads it on the same machine knows how long it was under way.

    styles   the chunks: byte for byte what an engine of that name sends
    pace     when each stream writes its next token
    serving  the HTTP around it
"""
