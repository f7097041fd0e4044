"""The same application on other people's servers and in other people's applications, held to the same acceptance tests.

served   what is served: an engine whose life can be watched and steered from outside
servers  how each server is told to serve it
"""
