"""One HTTP request: routes, authentication, admission, body, answer and response."""
