"""The fault matrix: a bad engine and bad clients, on real sockets, against the real service.

    cells                               what goes wrong, when, and what is due
    speech engine answers acting        the bad engine: what a good one says, and what becomes of it
    places                              engines that cannot be reached
    guest visit manners frames bodies   the bad client: a socket, what it does, and what it says
    house command                       the service, in a thread of this process to be looked into, and as it is started
    matrix table                        plays the cells; prints them

The command `python -m tests.checks.faults` plays them all and prints the tables of the README; `test_matrix`
has each as a test.
"""
