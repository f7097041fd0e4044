"""The Messages API itself, as pure code: requests, answers, events and errors. No sockets, clock or randomness."""
