"""Bodies of megabytes, read and written in steps so that the event loop stays free."""
