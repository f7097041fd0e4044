"""What the engines behind a URL have in common."""
