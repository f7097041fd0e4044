"""Message batches: a durable store of requests and results, and the worker that works them off."""
