"""JSON bodies of megabytes, read and written in steps so that the event loop is never blocked for long."""
