"""The application on other ASGI servers and inside other applications, with the same acceptance tests for all.

served   the application, over an engine that the tests observe and control from outside
servers  the command lines of the servers
"""
