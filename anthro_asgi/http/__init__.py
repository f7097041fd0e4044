"""One HTTP request: routes, admission, the body in, the answer out."""
