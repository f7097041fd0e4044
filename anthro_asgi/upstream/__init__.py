"""How to reach an engine: HTTP/1.1 over TCP, TLS or a Unix socket, and server-sent events."""
