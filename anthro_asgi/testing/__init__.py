"""A kit for testing clients of the Messages API."""
