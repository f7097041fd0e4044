"""The fault matrix: a bad engine and bad clients, on real sockets, against the real service.

    cells               what goes wrong, when, and the expected outcome
    bad_engine          the engine; its faults are in stream_faults and response_faults
    healthy_response    what the engine sends without a fault
    unreachable         engines that cannot be reached
    client, session     a client on a plain socket, and the connections of one client
    client_faults       what clients do; request_framing and request_bodies hold what they send
    service             the service in a thread of this process; service_process: the command as a process
    matrix, table       plays the cells; prints the tables of docs/explanation/faults-and-limits.md

`python -m tests.checks.faults` plays all cells and prints the tables. In `test_matrix` each cell is a test.
"""
