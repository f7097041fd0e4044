"""Message batches and uploaded files: a durable store of both, and the worker that works batches off."""
