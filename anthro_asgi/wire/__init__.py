"""What is said: the Messages API's words, as pure code (no sockets, no clock, no randomness)."""
