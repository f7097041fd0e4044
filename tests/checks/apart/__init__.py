"""What is tried by commands of its own, as it needs packages that are as large as an engine."""
