"""The HTTP/1.1 client that reaches engines: TCP, TLS or Unix sockets, a connection pool, and server-sent events."""
