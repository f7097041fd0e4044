"""The server process: sockets, TLS, HTTP/1.1 connections on uvicorn, worker processes, reload and shutdown."""
