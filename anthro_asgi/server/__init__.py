"""THE PROCESS: its sockets, its server, its workers and its end."""
